"""Mixed precision, as upstream's `Global.use_amp` means it (tools/train.py, tools/program.py).

Called by the loop and by snapshots. Paddle has it on GPUs alone, and ignores it elsewhere: so do we.

At level O2 upstream keeps each weight twice: half in the model, whole in the optimizer, and halves it again
after each step. Here the model's weights stay whole, and are halved where they are used, which gives the
same numbers. So checkpoints, averages, evaluation and export have whole weights at either level.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rectrain_api.presets import AmpConfig

log = logging.getLogger(__name__)

_COUNTS: Final = ("incr_count", "decr_count")
"""Of the scaler's steps in a row; its other numbers follow from the configuration."""


class Amp:
    """Precision of the forward pass, and the factor of the loss."""

    def __init__(self, config: AmpConfig) -> None:
        import paddle

        self._config = config
        self._scaler = paddle.amp.GradScaler(
            init_loss_scaling=config.scale_loss, use_dynamic_loss_scaling=config.use_dynamic_loss_scaling
        )

    @classmethod
    def of(cls, config: AmpConfig | None) -> "Amp | None":
        """None where there is none to have."""
        return cls(config) if config is not None and on_gpu() else None

    def predict(self, model: Any, tensors: Sequence[Any]) -> Any:
        """What the model makes of a batch, in whole numbers again."""
        import paddle

        config = self._config
        with paddle.amp.auto_cast(
            level=config.level,
            dtype=config.dtype,
            custom_black_list=config.custom_black_list,
            custom_white_list=config.custom_white_list,
        ):
            predictions = model(tensors[0], data=tensors[1:])
        return _whole(predictions)

    def backward(self, loss: Any) -> None:
        """Gradients of the scaled loss."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: Any) -> None:
        """The optimizer's step with gradients scaled back; none, when one of them isn't finite."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """What the next steps depend on, as JSON has it."""
        state = self._scaler.state_dict()
        return {"scale": float(state["scale"][0]), **{name: int(state[name]) for name in _COUNTS}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        import numpy as np

        whole: Any = self._scaler.state_dict()
        counts = {name: state[name] for name in _COUNTS}
        self._scaler.load_state_dict(whole | counts | {"scale": np.array([state["scale"]], np.float32)})


def on_gpu() -> bool:
    """Whether this process trains on one."""
    import paddle

    return not str(paddle.device.get_device()).startswith("cpu")


def tell(config: AmpConfig | None) -> None:
    """Say what becomes of it, once a run."""
    if config is None:
        return
    if on_gpu():
        log.info("Mixed precision: level %s, %s.", config.level, config.dtype)
    else:
        log.warning(
            "Mixed precision (amp) is ignored: Paddle has it on GPUs alone, and this run is on a CPU."
        )


def _whole(predictions: Any) -> Any:
    """The same with all numbers in float32, wherever they are nested."""
    import paddle

    if isinstance(predictions, dict):
        return {name: _whole(value) for name, value in predictions.items()}
    if isinstance(predictions, list | tuple):
        return type(predictions)(_whole(value) for value in predictions)
    if isinstance(predictions, paddle.Tensor) and predictions.dtype in (paddle.float16, paddle.bfloat16):
        return predictions.astype(paddle.float32)
    return predictions
