"""Runs of a small job, each hunted by a seeded plan of faults, and each held to a run without any.

`make chaos` does CHAOS_RUNS of them (60), in CHAOS_LANES lanes side by side (2), from the seed CHAOS_SEED;
run number N of a seed always draws the same plan, and CHAOS_ONLY=N repeats it alone. `make test` does a few
aimed ones.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random
from threading import Lock

import pytest

from rectrain_local.assets.resolve import Binaries
from rectrain_local.s3 import SeaweedS3
from tests.chaos import troubles
from tests.chaos.hunt import Hunt, Trouble, plans
from tests.chaos.lane import Errands, Lane
from tests.chaos.recipe import INTERVAL, NANO, SIZES, Outcome, Recipe
from tests.support.trainer import digits

SEED = int(os.environ.get("CHAOS_SEED", "20"))
RUNS = int(os.environ.get("CHAOS_RUNS", "60"))
LANES = int(os.environ.get("CHAOS_LANES", "2"))
ONLY = os.environ.get("CHAOS_ONLY")
SHORT, LONG, SIZED = Recipe(NANO, epochs=5), Recipe(NANO, epochs=30), Recipe(SIZES, epochs=8)
"""In the long one the model begins to read, and the best isn't the last."""
Lanes = Callable[[int], list[Lane]]


@pytest.fixture
def lanes(tmp_path: Path, binaries: Binaries) -> Iterator[Lanes]:
    """So many, open."""
    opened: list[Lane] = []

    def make(count: int) -> list[Lane]:
        errands = Errands()
        for number in range(count):
            folder = tmp_path / f"lane-{number}"
            folder.mkdir()
            opened.append(Lane(folder, SeaweedS3(folder / "s3", binaries.weed), errands))
            opened[-1].open(digits())
        return opened

    yield make
    for lane in opened:
        lane.s3.stop(kill=True)


def hunt_all(hunts: Sequence[Callable[[Lane], Hunt]], lanes: Sequence[Lane]) -> list[Hunt]:
    """Each by the next lane that is free, held to a run in peace; those that failed to work raise."""
    peace: dict[Recipe, tuple[Outcome, float]] = {}
    making = Lock()

    def in_peace(hunt: Hunt) -> tuple[Outcome, float]:
        with making:
            if hunt.recipe not in peace:
                peace[hunt.recipe] = Hunt(
                    f"peace-{len(peace)}", lanes[0], hunt.recipe, Random(0), []
                ).peaceful()
            return peace[hunt.recipe]

    waiting: SimpleQueue[Callable[[Lane], Hunt]] = SimpleQueue()
    for hunt in hunts:
        waiting.put(hunt)

    def work(lane: Lane) -> list[Hunt]:
        done = []
        while True:
            try:
                hunt = waiting.get_nowait()(lane)
            except Empty:
                return done
            hunt.run(*in_peace(hunt))
            print(hunt, flush=True)
            done.append(hunt)

    with ThreadPoolExecutor(len(lanes)) as pool:
        working = [pool.submit(work, lane) for lane in lanes]
        lanes[0].errands.serve(lambda: all(one.done() for one in working))
        return [hunt for one in working for hunt in one.result()]


def table(hunts: Sequence[Hunt]) -> str:
    """What was tried, how often, in how many runs; then what it came to."""
    times: Counter[str] = sum((h.tried for h in hunts), Counter())
    lines = [f"{'tried':<34}{'times':>7}{'runs':>6}"]
    lines += [f"{n:<34}{times[n]:>7}{sum(n in h.tried for h in hunts):>6}" for n in sorted(times)]
    lost = sorted(step for h in hunts for step in h.lost)
    if lost:
        lines.append(
            f"{sum(h.attempts for h in hunts)} attempts; steps done again after one, with S3 healthy: median "
            f"{lost[len(lost) // 2]}, most {lost[-1]} (a checkpoint every {INTERVAL}, and one on its way)"
        )
    lines.append(f"seed {SEED}; {len(hunts)} runs")
    return "\n".join(lines)


def judge(hunts: Sequence[Hunt]) -> None:
    print("\n" + table(hunts), flush=True)
    stories = [h.story() for h in hunts if h.broken]
    assert not stories, "\n" + "\n".join(stories)


AIMED = (
    [
        Trouble(troubles.sigkill_before_a_record),
        Trouble(troubles.sigkill_in_an_evaluation),
        Trouble(None, troubles.clock_jumps),
    ],
    [Trouble(troubles.sigkill_before_the_best), Trouble(troubles.a_second_trainer, troubles.ANSWERS_LOST)],
)
AIMED_SEED = 36
"""One whose moments come early enough: the first of five epochs' best, the first of seven records."""


def test_a_few_aimed_ones(lanes: Lanes, capsys: pytest.CaptureFixture[str]) -> None:
    def hunt(number: int) -> Callable[[Lane], Hunt]:
        return lambda lane: Hunt(f"aimed-{number}", lane, SHORT, Random(AIMED_SEED), AIMED[number])

    with capsys.disabled():
        hunts = hunt_all([hunt(0), hunt(1)], lanes(2))
        judge(hunts)
    assert {h.name: h.attempts for h in hunts} == {"aimed-0": 3, "aimed-1": 2}, "every blow landed"


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_at_random(lanes: Lanes, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = dict(zip(range(1, RUNS + 1), plans(SEED), strict=False))
    numbers = [int(ONLY)] if ONLY else list(drawn)

    def hunt(number: int) -> Callable[[Lane], Hunt]:
        dice = Random(f"{SEED}-{number}")
        recipe = LONG if number % 3 else SIZED
        return lambda lane: Hunt(f"run-{number:03d}", lane, recipe, dice, drawn[number])

    with capsys.disabled():
        hunts = hunt_all([hunt(n) for n in numbers], lanes(min(LANES, len(numbers))))
        assert len(hunts) == len(numbers)
        judge(hunts)
