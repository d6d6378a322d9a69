"""Our training loop against upstream's: `python tests/benchmarks/loop.py`.

Both train svtr_nano on the same batches from the same loader, from the same weights, on this machine's CPU
or GPU; upstream's is tools/program.py as it is, with its training metric off. Runs are interleaved, so that
a change of the machine's mood hits both. Prints one JSON line {"name", "value", "unit", "baseline",
"ratio"} of medians: value ours, baseline upstream's, ratio = value / baseline: above 1 is better.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from rectrain_trainer.device import configure_device

DEVICE_FLAGS = {"cpu": 0, "gpu": 1}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, help="Runs of each loop.")
    parser.add_argument("--steps", type=int, default=25, help="Steps of each run.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", choices=sorted(DEVICE_FLAGS), default="cpu")
    parser.add_argument("--preset", default="svtr_nano")
    options = parser.parse_args()
    configure_device(DEVICE_FLAGS[options.device])
    with tempfile.TemporaryDirectory(prefix="rectrain-bench-") as folder:
        ours, theirs = measure(options, Path(folder))
    value, baseline = statistics.median(ours), statistics.median(theirs)
    line = {
        "name": f"loop_{options.preset}_{options.device}",
        "value": round(value, 1),
        "unit": "samples/s",
        "baseline": round(baseline, 1),
        "ratio": round(value / baseline, 3),
        "spread": [[round(min(runs), 1), round(max(runs), 1)] for runs in (ours, theirs)],
    }
    print(json.dumps(line))


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[float], list[float]]:
    """Samples a second of each run: ours, upstream's. The first pair only warms up."""
    from rectrain_trainer.loader import Loader
    from tests.unit.trainer_learn.digits import make_digits
    from tests.unit.trainer_learn.recipes import loose, make_recipe

    make_digits(folder, options.steps * options.batch_size)
    recipe = make_recipe(options.preset, epochs=1, batch_size=options.batch_size, augment=[])
    ours: list[float] = []
    theirs: list[float] = []
    with Loader(recipe, loose(folder)) as loader:
        for number in range(options.runs + 1):
            first, second = (ours, theirs) if number % 2 else (theirs, ours)
            for results in (first, second):
                loop = run_ours if results is ours else run_upstreams
                results.append(loop(recipe, loader, folder / "out"))
            print(
                f"run {number}: ours {ours[-1]:.1f}, upstream's {theirs[-1]:.1f} samples/s", file=sys.stderr
            )
    return ours[1:], theirs[1:]


def run_ours(recipe: Any, loader: Any, _folder: Path) -> float:
    """One run of our loop: a moment at the end of each step."""
    from rectrain_trainer.loop import TrainState, train

    moments = [time.perf_counter() for _ in train(TrainState.new(recipe, len(loader)), loader)]
    return rate(moments, recipe.batch_size)


def run_upstreams(recipe: Any, loader: Any, folder: Path) -> float:
    """One run of upstream's loop: a moment at the loss of each step, as many steps."""
    from rectrain_trainer.model import build_learner
    from tests.unit.trainer_learn.upstream_loop import train_upstream

    losses: list[float] = []
    train_upstream(
        recipe,
        build_learner(recipe, len(loader)),
        loader,
        folder,
        lambda _loss: losses.append(time.perf_counter()),
    )
    return rate(losses, recipe.batch_size)


def rate(moments: list[float], batch_size: int) -> float:
    """Samples a second of the median step: other programs' bursts hit single steps."""
    steps = [after - before for before, after in itertools.pairwise(moments)]
    return batch_size / statistics.median(steps)


if __name__ == "__main__":
    main()
