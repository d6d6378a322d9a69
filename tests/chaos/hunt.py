"""One run, hunted: attempt after attempt in trouble, then in peace, until it ends; then the invariants."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

from tests.chaos.invariants import broken, resumed_steps
from tests.chaos.lane import Lane
from tests.chaos.recipe import INTERVAL, Outcome, Recipe, outcome_of
from tests.chaos.troubles import (
    AT_RANDOM,
    BLOWS,
    REFUSALS,
    REFUSED,
    WEATHERS,
    Blow,
    Scene,
    Weather,
    a_second_trainer,
    clock_jumps,
    name_of,
)
from tests.support.fault_proxy import FaultProxy
from tests.support.trainer import Ended, Started

CLOCK = Path(__file__).parent / "clock"
PEACEFUL_TRIES = 4
"""Attempts without a blow in which a run must get to its end. A refusal in the wrong moment takes one."""
LOST_LIMIT = 2 * INTERVAL
"""One interval, and at most another for the snapshot that is on its way to S3 meanwhile."""

Card = TypeVar("Card")


@dataclass(frozen=True)
class Trouble:
    """What one attempt meets."""

    blow: Blow | None = None
    weather: Weather | None = None

    def __str__(self) -> str:
        return " + ".join(name_of(t) for t in (self.weather, self.blow) if t)


def plans(seed: int) -> Iterator[list[Trouble]]:
    """Of run after run, without an end: up to four attempts with a blow, half of them under some weather.

    Some end in a weather alone. All kinds come equally often, but blows at random moments thrice.
    """
    dice = Random(seed)
    blows, weathers = _dealt([*BLOWS, *AT_RANDOM, *AT_RANDOM], dice), _dealt(WEATHERS, dice)
    while True:
        plan = [
            Trouble(next(blows), next(weathers) if dice.random() < 0.5 else None)
            for _ in range(dice.randint(0, 4))
        ]
        if not plan or dice.random() < 0.5:
            plan.append(Trouble(None, next(weathers)))
        yield plan


def _dealt(cards: Sequence[Card], dice: Random) -> Iterator[Card]:
    """From a shuffled deck, then from the next one."""
    while True:
        yield from dice.sample(cards, len(cards))


@dataclass
class Hunt:
    """`run` once; then what was met, what was lost, and what is broken."""

    name: str
    lane: Lane
    recipe: Recipe
    dice: Random
    troubles: Sequence[Trouble]
    tried: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    lost: list[int] = field(default_factory=list)
    """Steps done again after each attempt that didn't end the run and had a healthy S3 service."""
    broken: list[str] = field(default_factory=list)
    _ends: list[tuple[Trouble, Ended]] = field(default_factory=list)
    _started: list[tuple[Trouble, Started]] = field(default_factory=list)

    def run(self, wanted: Outcome, patience_s: float) -> None:
        """To the end, through everything."""
        self._place = self.lane.new_place()
        self._trainer = self.lane.new_trainer(self.name)
        self._clock = self._trainer.folder / "clock"
        self._clock.write_text("0")
        proxy = FaultProxy(self.lane.s3.endpoint, seed=self.dice.getrandbits(32))
        proxy.start()
        try:
            if self._reaches_its_end(proxy, patience_s):
                self._count_lost()
                self.broken += broken(self._place, self.recipe, wanted)
                self.broken += [f"{n} steps were lost" for n in self.lost if n > LOST_LIMIT]
        finally:
            self._trainer.close()
            proxy.stop()
        self.tried.update({name: times for name, times in proxy.counts.items() if name != "passed"})

    def peaceful(self) -> tuple[Outcome, float]:
        """What a run without any trouble leaves, and how long it takes [s]."""
        place, started = self.lane.new_place(), time.monotonic()
        ended = self.lane.new_trainer(self.name).run(self.recipe.manifest(self.lane.packed, place.uri, 0))
        assert ended.code == 0, ended.errors
        return outcome_of(place), time.monotonic() - started

    def __str__(self) -> str:
        met = "; ".join(str(trouble) or "in peace" for trouble, _ in self._ends)
        return f"{self.name}: {met}: {'BROKEN' if self.broken else 'whole'}"

    def _reaches_its_end(self, proxy: FaultProxy, patience_s: float) -> bool:
        for trouble in [*self.troubles, *[Trouble()] * PEACEFUL_TRIES]:
            self.attempts += 1
            ended = self._attempt(trouble, proxy, patience_s)
            self._ends.append((trouble, ended))
            allowed = BLOWS[trouble.blow] if trouble.blow else frozenset()
            allowed |= {0, REFUSED} if trouble.weather in REFUSALS else {0}
            if ended.code not in allowed:
                self.broken.append(
                    f"attempt {self.attempts} ({trouble}) ended with {ended.code}: {ended.message}"
                )
                return False
            if ended.code == 0:
                return True
        self.broken.append(f"it didn't get to its end in {self.attempts} attempts")
        return False

    def _attempt(self, trouble: Trouble, proxy: FaultProxy, patience_s: float) -> Ended:
        proxy.clear()
        manifest = self.recipe.manifest(self.lane.packed, self._place.uri, self.dice.choice([0, 2]))

        def start() -> Started:
            clock = {"PYTHONPATH": str(CLOCK), "CHAOS_CLOCK": str(self._clock)}
            run = self._trainer.start(manifest, AWS_ENDPOINT_URL_S3=proxy.endpoint, **clock)
            self._started.append((trouble, run))
            return run

        scene = Scene(start(), start, proxy, self.lane, self._clock, self.dice, patience_s)
        for part in (trouble.weather, trouble.blow):
            if part:
                self.tried[name_of(part)] += 1
                part(scene)
        return scene.run.wait()

    def _count_lost(self) -> None:
        """How far attempts had got, by their own words and rows, and where the next ones went on."""
        resumed = resumed_steps(self._place.records())
        for trouble, run in self._started:
            errors = run.errors()
            number = re.search(r"INFO Attempt (\d+) of", errors)
            if number is None or trouble.weather not in (None, clock_jumps):
                continue
            if trouble.blow is a_second_trainer:
                continue  # what the first one did after the second had begun was never to count
            attempt = int(number[1])
            said = [int(step) for step in re.findall(r"step (\d+)/\d+", errors)]
            rows = self._place.trained(attempt)
            if attempt + 1 in resumed and (said or rows):
                self.lost.append(max([*said, *rows]) - resumed[attempt + 1])

    def story(self) -> str:
        """For a run in which something is broken."""
        lines = [f"{self.name}: {'; '.join(self.broken)}"]
        lines += [f"  {trouble or 'in peace'}: {ended.code} {ended.message}" for trouble, ended in self._ends]
        return "\n".join([*lines, f"  their output is in {self._trainer.folder}"])
