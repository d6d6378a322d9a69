"""Our training loop against upstream's: `python tests/benchmarks/loop.py`.

Both train svtr_nano on the same batches from the same loader, on this machine's CPU or GPU. Upstream's is
`main` of its script tools/train.py with nothing replaced but the loader: its own builders, its own loop. Once
with its training metric off, which is the loop alone, and once on, as its recognition configs have it. Short
runs are interleaved, so that a change of the machine's mood hits all. Prints JSON lines {"name", "value",
"unit", "baseline", "ratio"} of medians: value ours, baseline upstream's, above a ratio of 1 ours is better.
Samples a second of CPU time are beside those of wall time: other programs disturb them less.
"""

import argparse
import functools
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from rectrain_trainer.device import configure_device

DEVICE_FLAGS = {"cpu": 0, "gpu": 1}
Moment = tuple[float, float]
Rates = dict[str, float]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=9, help="Runs of each loop.")
    parser.add_argument("--steps", type=int, default=20, help="Steps of each run.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", choices=sorted(DEVICE_FLAGS), default="cpu")
    parser.add_argument("--preset", default="svtr_nano")
    options = parser.parse_args()
    configure_device(DEVICE_FLAGS[options.device])
    with tempfile.TemporaryDirectory(prefix="rectrain-bench-") as folder:
        rates = measure(options, Path(folder))
    for suffix, loop in (("", "upstream"), ("_with_training_metric", "upstream, metric on")):
        for clock, unit in (("wall", "samples/s"), ("cpu", "samples/CPU-s")):
            name = f"loop_{options.preset}_{options.device}{suffix}_{clock}"
            emit(name, unit, [r[clock] for r in rates["ours"]], [r[clock] for r in rates[loop]])


def emit(name: str, unit: str, ours: list[float], theirs: list[float]) -> None:
    """One line."""
    value, baseline = statistics.median(ours), statistics.median(theirs)
    line = {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "baseline": round(baseline, 1),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "spread": [[round(min(runs), 1), round(max(runs), 1)] for runs in (ours, theirs)],
    }
    print(json.dumps(line), flush=True)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[Rates]]:
    """Samples a second of each run of each loop. The first round only warms up."""
    from rectrain_trainer.loader import Loader
    from tests.unit.trainer_learn.digits import make_digits
    from tests.unit.trainer_learn.recipes import loose, make_recipe

    make_digits(folder, options.steps * options.batch_size)
    recipe = make_recipe(options.preset, epochs=1, batch_size=options.batch_size, augment=[])
    loops: dict[str, Callable[[Any, Any, Path], Rates]] = {
        "ours": run_ours,
        "upstream": functools.partial(run_upstreams, metric=False),
        "upstream, metric on": functools.partial(run_upstreams, metric=True),
    }
    rates: dict[str, list[Rates]] = {name: [] for name in loops}
    names = list(loops)
    with Loader(recipe, loose(folder)) as loader:
        for number in range(options.runs + 1):
            names = names[1:] + names[:1]
            for name in names:
                rates[name].append(loops[name](recipe, loader, folder / "out"))
            said = ", ".join(f"{name} {rates[name][-1]['wall']:.1f}" for name in loops)
            print(f"run {number} [samples/s]: {said}", file=sys.stderr)
    return {name: runs[1:] for name, runs in rates.items()}


def run_ours(recipe: Any, loader: Any, _folder: Path) -> Rates:
    """One run of our loop: a moment at the end of each step."""
    from rectrain_trainer.loop import TrainState, train

    return rates_of([moment() for _ in train(TrainState.new(recipe, len(loader)), loader)], recipe.batch_size)


def run_upstreams(recipe: Any, loader: Any, folder: Path, *, metric: bool) -> Rates:
    """One run of upstream's script: a moment at the loss of each step, as many steps."""
    from tests.unit.trainer_learn.upstream_loop import run_train_script

    moments: list[Moment] = []
    run_train_script(recipe, loader, folder, lambda _loss: moments.append(moment()), metric=metric)
    return rates_of(moments, recipe.batch_size)


def moment() -> Moment:
    """Now, on both clocks [s]."""
    return time.perf_counter(), time.process_time()


def rates_of(moments: list[Moment], batch_size: int) -> Rates:
    """Samples a second of the median step: other programs' bursts hit single steps."""
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(moments)]
    wall, cpu = (statistics.median(column) for column in zip(*steps, strict=True))
    return {"wall": batch_size / wall, "cpu": batch_size / cpu}


if __name__ == "__main__":
    main()
