"""The average of the weights over the steps, as upstream 3.7 keeps it (ppocr/utils/ema.py).

Called by the loop after each optimizer step, and by whoever evaluates, saves or exports: with an average,
that is what upstream evaluates and exports, while training goes on from the weights themselves. The numbers
are upstream's to the last bit, its correction for the zeros at the start included, which is exact for
"normal" alone. Upstream forgets the last decay on resume; here it follows from the step.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from rectrain_api.errors import InternalError
from rectrain_api.presets import EmaConfig
from rectrain_trainer.copying import Memory
from rectrain_trainer.model import check_params, set_params


class EmaState(TypedDict):
    """An average copied out of the device: later steps don't change it. Named as upstream's .pdema is."""

    step: int
    """How often it was updated."""
    ema_state: dict[str, Any]
    """Uncorrected sums by the weights' names in the model: numpy arrays, float32."""
    train_state: dict[str, Any]
    """The weights that training goes on from: numpy arrays."""


class Ema:
    """Weights and BatchNorm's running statistics, averaged. Every rank keeps the same."""

    def __init__(self, config: EmaConfig, sums: dict[str, Any]) -> None:
        self._config = config
        self._sums = sums
        self.step = 0

    @classmethod
    def new(cls, config: EmaConfig, model: Any) -> "Ema":
        """Before the first step: zeros."""
        import paddle

        return cls(
            config,
            {n: paddle.zeros_like(w, dtype="float32") for n, w in model.state_dict().items()},
        )

    def update(self, model: Any) -> None:
        """Take in the weights after an optimizer step. Doesn't wait for the device."""
        import paddle

        decay = decay_at(self._config, self.step)
        current = model.state_dict()
        with paddle.no_grad():
            for name, held in self._sums.items():
                self._sums[name] = decay * held + (1 - decay) * current[name].astype("float32")
        self.step += 1

    def weights(self) -> dict[str, Any]:
        """The average, as tensors that a model takes. There must have been a step."""
        import paddle

        if not self.step:
            raise InternalError("The average of the weights was asked for before the first step.")
        if self._config.decay_type == "exponential":  # begins near 0: nothing to correct
            return {name: held.clone() for name, held in self._sums.items()}
        share = 1 - decay_at(self._config, self.step - 1) ** self.step
        with paddle.no_grad():
            return {name: held / share for name, held in self._sums.items()}

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        """`model` holds the average meanwhile, and its own weights again afterwards, whatever happens."""
        own = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        try:
            model.set_state_dict(self.weights())
            yield
        finally:
            model.set_state_dict(own)

    def capture(self, model: Any, memory: Memory) -> EmaState:
        """Copy it out, with the model's own weights. Waits for the device."""
        return {
            "step": self.step,
            "ema_state": memory.copy(self._sums),
            "train_state": memory.copy(model.state_dict()),
        }

    def restore(self, state: Mapping[str, Any], model: Any) -> None:
        """Go on from what `capture` gave. Raises InvalidSpec if it is of another model."""
        import paddle

        check_params(self._sums, state["ema_state"])
        self._sums = {name: paddle.to_tensor(state["ema_state"][name]) for name in self._sums}
        self.step = state["step"]
        set_params(model, state["train_state"])


def decay_at(config: EmaConfig, step: int) -> float:
    """How much of the average stays when step `step` (from 0) is taken in."""
    match config.decay_type:
        case "threshold":
            return min(config.decay, (1 + step) / (10 + step))
        case "exponential":
            return config.decay * (1 - math.exp(-(step + 1) / config.gamma))
        case "normal":
            return config.decay
