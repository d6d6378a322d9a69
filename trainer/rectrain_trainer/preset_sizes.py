"""Counts and times the presets: `python -m rectrain_trainer.preset_sizes`.

Writes `preset_sizes.yaml`, which the page of the presets (`docs/reference/presets.md`) is made from. Times are
of the machine that it runs on, so they are taken by hand; what is counted is held to by a test.
"""

import datetime
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from rectrain_api import presets
from rectrain_api.plan import EvalInterval, ModelPlan, TrainingPlan
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.model import build_model

FILE: Final = Path(__file__).with_name("preset_sizes.yaml")
CHARACTERS: Final = tuple("0123456789")
"""So few that it is the network that is counted."""
_RUNS: Final = 5


def main() -> None:
    """Count and time every preset here, on one core."""
    from rectrain_trainer.device import configure_device

    configure_device(0)
    found = {"measured": {"on": _cpu(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}}
    found["presets"] = {name: {**count(name), "readMs": _timed(name)} for name in presets.all_presets()}
    FILE.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def count(name: str) -> dict[str, int]:
    """Parameters: all that are trained, and those that an export keeps; for ten characters."""
    model = build_model(_recipe(name))
    parts = [(key, int(tensor.size)) for key, tensor in model.named_parameters()]
    guides = ("head.gtc_head.", "head.before_gtc.", "head.sar_head.", "backbone.fc.", "backbone.last_conv.")
    return {
        "trained": sum(size for _, size in parts),
        "exported": sum(size for key, size in parts if not key.startswith(guides)),
    }


def _recipe(name: str) -> Recipe:
    preset = presets.load(name)
    model = ModelPlan(
        preset=name,
        image_shape=preset.image_shape,
        padded=preset.padded,
        max_text_length=preset.max_text_length,
        config=preset.configured({}),
    )
    training = TrainingPlan(
        epochs=1,
        batch_size=1,
        learning_rate=preset.learning_rate,
        eval_interval=EvalInterval(every=1, unit="epochs"),
        seed=0,
        deterministic=False,
    )
    return resolve(model, training, CHARACTERS)


def _timed(name: str) -> float:
    """Milliseconds to read one image of the preset's size."""
    import paddle

    recipe = _recipe(name)
    model: Any = build_model(recipe)
    model.eval()
    images = paddle.zeros([1, *recipe.image_shape])

    def runs() -> Iterator[float]:
        for _ in range(_RUNS + 1):
            began = time.perf_counter()
            model(images).numpy()
            yield time.perf_counter() - began

    with paddle.no_grad():
        _, *seconds = runs()  # the first one only warms up
    return round(1000 * statistics.median(seconds), 1)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    main()
