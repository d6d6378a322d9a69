"""Model, loss, optimizer and decoder of one recipe, through upstream's builders.

Called by the train stage, evaluate, export and predict.
"""

import contextlib
import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectrain_api.errors import InvalidSpec
from rectrain_trainer import seeding, upstream
from rectrain_trainer.amp import Amp
from rectrain_trainer.config import Recipe
from rectrain_trainer.unbuilt import unbuilt


@dataclass(frozen=True)
class Learner:
    """What a training step needs. `optimizer` and `rate` share one schedule over all epochs."""

    model: Any
    loss: Any
    optimizer: Any
    rate: Any
    amp: Amp | None = None
    """None: single precision throughout."""


def build_model(recipe: Recipe) -> Any:
    """The network with its first weights, which depend on the recipe's seed alone.

    Parameter names start from zero each time: the optimizer's state is filed under them.
    """
    import paddle

    with paddle.utils.unique_name.guard():
        seeding.seed_build(recipe.seed)
        ppocr = upstream.load()
        try:
            return ppocr.build_model(recipe.architecture)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as wrong:
            raise unbuilt(recipe.architecture, wrong, ppocr.home) from wrong


def build_learner(recipe: Recipe, steps_per_epoch: int) -> Learner:
    """Model, loss and optimizer for `recipe.epochs` epochs of `steps_per_epoch` steps."""
    ppocr = upstream.load()
    model = build_model(recipe)
    optimizer, rate = build_optimizer(recipe, steps_per_epoch, model)
    loss = ppocr.build_loss(copy.deepcopy(recipe.loss))
    return Learner(model, loss, optimizer, rate, Amp.of(recipe.amp))


def build_optimizer(recipe: Recipe, steps_per_epoch: int, model: Any) -> tuple[Any, Any]:
    """Optimizer and schedule alone: also used when a run gets more epochs, or another learning rate."""
    rates = recipe.optimizer["lr"]
    lowered = _rated(rates, rates["learning_rate"] * recipe.rate_factor)
    return upstream.load().build_optimizer(
        {**recipe.optimizer, "lr": lowered}, epochs=recipe.epochs, steps=steps_per_epoch, model=model
    )


def _rated(rates: Mapping[str, Any], peak: float) -> dict[str, Any]:
    """A schedule with this peak: two of upstream's don't have it under `learning_rate`."""
    result = {**rates, "learning_rate": peak}
    if rates.get("name") == "Piecewise":
        factor = peak / max(rates["values"])
        result["values"] = [value * factor for value in rates["values"]]
    if rates.get("name") == "OneCycle":
        result["max_lr"] = peak
    return result


def build_decoder(characters: Sequence[str], *, use_space_char: bool) -> Any:
    """Upstream's greedy CTC decoder: `decoder(probabilities_NTV)` -> [(text, confidence)]."""
    with written_dictionary(characters, use_space_char=use_space_char) as section:
        decoder = upstream.load().build_post_process({"name": "CTCLabelDecode"}, section)
    decoder.reverse = False  # upstream turns it on when the dictionary's path contains "arabic"
    return decoder


@contextlib.contextmanager
def written_dictionary(characters: Sequence[str], *, use_space_char: bool) -> Iterator[dict[str, Any]]:
    """`dictionary_section` over a file that is there within the block: upstream reads it when it builds."""
    with tempfile.TemporaryDirectory(prefix="rectrain-dict-") as folder:
        yield dictionary_section(characters, Path(folder), use_space_char=use_space_char)


def dictionary_section(characters: Sequence[str], folder: Path, *, use_space_char: bool) -> dict[str, Any]:
    """The dictionary as encoder and decoder want it in Global; writes its file into `folder`."""
    path = folder / "dictionary.txt"
    path.write_text("".join(f"{c}\n" for c in characters), encoding="utf-8", newline="\n")
    return {"character_dict_path": str(path), "use_space_char": use_space_char}


def set_params(model: Any, params: Mapping[str, Any]) -> None:
    """Every weight, or an error: upstream only warns, and trains on with a random head."""
    check_params(model.state_dict(), params)
    model.set_state_dict(dict(params))


def check_params(wanted: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Names and shapes of `params` are those of `wanted`, or InvalidSpec."""
    own = {name: [*tensor.shape] for name, tensor in wanted.items()}
    given = {name: [*array.shape] for name, array in params.items()}
    wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    if wrong:
        raise InvalidSpec(
            f"The weights don't fit this model: {len(wrong)} of {len(own)} differ, first {wrong[0]} "
            f"({given.get(wrong[0])}, wanted {own.get(wrong[0])}). They are of another preset or dictionary."
        )
