"""Counts and times the presets: `python -m rectrain_trainer.preset_sizes`.

Writes `preset_sizes.yaml`, which `docs/reference/presets.md` is made from (rectrain_trainer.preset_page).
Times are of the machine that it runs on, so they are taken by hand; what is counted is held to by a test.
"""

import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from rectrain_api import presets
from rectrain_api.plan import EvalInterval, ModelPlan, TrainingPlan
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.export import deployable, save_network
from rectrain_trainer.model import build_model

FILE: Final = Path(__file__).with_name("preset_sizes.yaml")
CHARACTERS: Final = tuple("0123456789")
"""So few that it is the network that is counted."""
_RUNS: Final = 5


def main() -> None:
    """Count and time every preset here, on one core."""
    from rectrain_trainer.device import configure_device

    os.environ["OMP_NUM_THREADS"] = "1"
    configure_device(0)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    sizes = {name: measured(name) for name in presets.all_presets()}
    found = {"measured": {"cpu": _cpu(), "date": today}, "presets": sizes}
    FILE.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def count(name: str) -> int:
    """Parameters that are trained, for ten characters."""
    return sum(int(parameter.size) for parameter in build_model(_recipe(name)).parameters())


def measured(name: str) -> dict[str, float]:
    """All that there is to know of one preset."""
    recipe = _recipe(name)
    model: Any = build_model(recipe)
    model.eval()
    params = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    network = deployable(model, recipe, params)
    return {
        "parameters": count(name),
        "exportedMb": _exported(network, recipe),
        "readMs": _timed(network, recipe),
    }


def _exported(network: Any, recipe: Recipe) -> float:
    """Megabytes of its weights for deployment."""
    with tempfile.TemporaryDirectory(prefix="rectrain-sizes-") as folder:
        save_network(network, recipe, Path(folder))
        return round(Path(folder, "inference.pdiparams").stat().st_size / 1e6, 1)


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


def _timed(network: Any, recipe: Recipe) -> float:
    """Milliseconds of CPU time to read one image of the preset's size."""
    import paddle

    images = paddle.zeros([1, *recipe.image_shape])

    def runs() -> Iterator[float]:
        for _ in range(_RUNS + 1):
            began = time.process_time()
            network(images).numpy()
            yield time.process_time() - began

    with paddle.no_grad():
        _, *seconds = runs()  # the first one only warms up
    return round(1000 * statistics.median(seconds), 1)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    main()
