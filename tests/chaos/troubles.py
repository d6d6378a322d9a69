"""The faults that a run is hunted with. A weather makes its S3 service or its clock bad; a blow ends it.

Each is a function over the scene: the run under way, the proxy before its service, and seeded dice. What is
aimed at a moment waits for the request, or the line of its output, by which that moment shows.
"""

import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.lane import Lane
from tests.support import faults
from tests.support.fault_proxy import FaultProxy
from tests.support.faults import Effect
from tests.support.trainer import RUN_DEADLINE_S, Started

GLANCE_S = 0.005
"""How often a run's output is looked at: an evaluation takes some 30 ms."""
HOUR_S = 3600.0
FENCED, REFUSED = 76, 69
"""Exit codes. After refusals in mid-run, another attempt may find them mended."""
RECORD = "/log/[0-9]+"
ATTEMPT = "/attempts/[0-9]+"


@dataclass
class Scene:
    """One attempt under way."""

    run: Started
    again: Callable[[], Started]
    """Starts another trainer on the same run."""
    proxy: FaultProxy
    lane: Lane
    clock: Path
    dice: Random
    patience_s: float
    """About what an attempt takes."""

    def goes_on(self, seconds: float) -> bool:
        """Wait; False when the run ended meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.run.process.poll() is not None:
                return False
            time.sleep(min(0.02, seconds))
        return True

    def says(self, words: str, times: int = 1) -> bool:
        """Wait until its output holds this so often; False when the run ended before, or hangs."""
        until = time.monotonic() + RUN_DEADLINE_S
        while len(re.findall(words, self.run.errors())) < times:
            if self.run.process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(GLANCE_S)
        return True

    def trains(self) -> bool:
        return self.says("INFO Training, epoch")

    def send(self, signo: signal.Signals) -> None:
        self.run.process.send_signal(signo)  # none, if it has ended

    def kill_at(self, name: str, *, landed: bool, skip: int = 0, **pattern: Any) -> None:
        """SIGKILL when this request comes: before the service has it, or before its answer is heard."""
        kill = faults.strike(self.run.kill, landed=landed)
        self.proxy.set(kill, name, method="PUT", skip=skip, count=1, **pattern)


# -- blows: how an attempt is ended

Blow = Callable[[Scene], None]


def sigkill_at_any_time(scene: Scene) -> None:
    if scene.goes_on(scene.dice.uniform(0.2, scene.patience_s)):
        scene.run.kill()


def sigkill_in_training(scene: Scene) -> None:
    if scene.trains() and scene.goes_on(scene.dice.uniform(0, scene.patience_s / 2)):
        scene.run.kill()


def sigkill_in_an_evaluation(scene: Scene) -> None:
    """After the last step of an epoch, before its checkpoint."""
    if scene.says("INFO Evaluating", scene.dice.randint(1, 6)):
        scene.run.kill()


def sigkill_in_the_export(scene: Scene) -> None:
    if scene.says("INFO Exporting") and scene.goes_on(scene.dice.uniform(0, 1.5)):
        scene.run.kill()


def sigkill_in_an_upload(scene: Scene) -> None:
    key = f"{ATTEMPT}/step-[0-9]+/(model|state|config)"
    landed = scene.dice.random() < 0.5
    scene.kill_at("killed in an upload", key=key, skip=scene.dice.randint(0, 20), landed=landed)


def sigkill_before_a_record(scene: Scene) -> None:
    """All files are there, and nothing says so."""
    skip = scene.dice.randint(0, 5)
    scene.kill_at("killed before a record", key=RECORD, body=b'"checkpoint"', skip=skip, landed=False)


def sigkill_after_a_record(scene: Scene) -> None:
    skip = scene.dice.randint(0, 5)
    scene.kill_at("killed after a record", key=RECORD, body=b'"checkpoint"', skip=skip, landed=True)


def sigkill_before_the_best(scene: Scene) -> None:
    """A checkpoint is the best one, and nothing says so."""
    skip = scene.dice.randint(0, 1)
    scene.kill_at("killed before a best", key=RECORD, body=b'"best"', skip=skip, landed=False)


def sigkill_after_a_retirement(scene: Scene) -> None:
    """Checkpoints are given up, and still there."""
    skip = scene.dice.randint(0, 3)
    scene.kill_at("killed after a retirement", key=RECORD, body=b'"retire"', skip=skip, landed=True)


def sigkill_at_the_end(scene: Scene) -> None:
    """Around the record `final`, and between the copies after it."""
    moment = scene.dice.choice(["before", "after", "copies"])
    if moment == "copies":
        scene.kill_at("killed in the copies", key="/runs/[^/]+/(export|best|report)/", landed=True)
    else:
        landed = moment == "after"
        scene.kill_at("killed at the record final", key=RECORD, body=b'"final"', landed=landed)


def sigterm_at_any_time(scene: Scene) -> None:
    if scene.goes_on(scene.dice.uniform(0.2, scene.patience_s)):
        scene.send(signal.SIGTERM)


def sigterm_in_training(scene: Scene) -> None:
    if scene.trains() and scene.goes_on(scene.dice.uniform(0, scene.patience_s / 2)):
        scene.send(signal.SIGTERM)


def sigterm_in_an_evaluation(scene: Scene) -> None:
    if scene.says("INFO Evaluating", scene.dice.randint(1, 6)):
        scene.send(signal.SIGTERM)


def sigterm_twice_then_sigkill(scene: Scene) -> None:
    if not scene.trains() or not scene.goes_on(scene.dice.uniform(0, scene.patience_s / 2)):
        return
    scene.send(signal.SIGTERM)
    scene.goes_on(scene.dice.uniform(0, 0.2))
    scene.send(signal.SIGTERM)
    if scene.goes_on(scene.dice.uniform(0, 0.5)):
        scene.run.kill()


def a_second_trainer(scene: Scene) -> None:
    """Takes the run over from the first one, which must see so and leave."""
    if scene.says("Checkpoint of step", scene.dice.randint(1, 4)):
        first, scene.run = scene.run, scene.again()
        ended = first.wait()
        assert ended.code in (FENCED, 0, REFUSED), f"overtaken, it ended with {ended.code}:\n{ended.errors}"


DEADLY = -signal.SIGKILL
BLOWS: Mapping[Blow, frozenset[int]] = {
    sigkill_at_any_time: frozenset({DEADLY}),
    sigkill_in_training: frozenset({DEADLY}),
    sigkill_in_an_evaluation: frozenset({DEADLY}),
    sigkill_in_the_export: frozenset({DEADLY}),
    sigkill_in_an_upload: frozenset({DEADLY}),
    sigkill_before_a_record: frozenset({DEADLY}),
    sigkill_after_a_record: frozenset({DEADLY}),
    sigkill_before_the_best: frozenset({DEADLY}),
    sigkill_after_a_retirement: frozenset({DEADLY}),
    sigkill_at_the_end: frozenset({DEADLY}),
    sigterm_at_any_time: frozenset({75, -signal.SIGTERM}),
    sigterm_in_training: frozenset({75}),
    sigterm_in_an_evaluation: frozenset({75}),
    sigterm_twice_then_sigkill: frozenset({75, DEADLY}),
    a_second_trainer: frozenset(),
}
"""With the exit codes that an attempt may end with besides 0, if the blow came too late."""
AT_RANDOM = (sigkill_at_any_time, sigkill_in_training, sigterm_at_any_time)


# -- weathers: what an attempt works under

Weather = Callable[[Scene], None]


def _requests(effect: Effect, name: str, chance: float, **pattern: Any) -> Weather:
    def weather(scene: Scene) -> None:
        scene.proxy.set(effect, name, chance=chance, **pattern)

    weather.__name__ = name.replace(" ", "_")
    return weather


def _refused(effect: Effect, name: str) -> Weather:
    """Refusals that pass: in mid-run, since before the first step they are the user's to mend."""

    def weather(scene: Scene) -> None:
        if scene.trains():
            scene.proxy.set(effect, name, chance=0.3, count=4)

    weather.__name__ = name.replace(" ", "_")
    return weather


def an_answer_that_never_comes(scene: Scene) -> None:
    """One upload hangs, until the client gives up (a minute)."""
    scene.proxy.set(faults.hang, "no answer", method="PUT", key=f"{ATTEMPT}/step-", count=1)


def s3_away(scene: Scene) -> None:
    """Connections are refused for a while."""
    if scene.trains() and scene.goes_on(scene.dice.uniform(0, scene.patience_s / 3)):
        scene.proxy.away()
        time.sleep(scene.dice.uniform(0.5, 6))
        scene.proxy.back()


def s3_killed(scene: Scene) -> None:
    """The service itself loses its power."""
    if scene.goes_on(scene.dice.uniform(1, scene.patience_s)):
        scene.proxy.counts["S3 killed with -9"] += 1
        scene.lane.cut_power(scene.dice.uniform(0.2, 3))


def clock_jumps(scene: Scene) -> None:
    """Hours, both ways; before the start and in mid-run."""
    for _ in range(2):
        scene.proxy.counts["clock jumps"] += 1
        scene.clock.write_text(str(scene.dice.uniform(-30, 30) * HOUR_S))
        if not (scene.trains() and scene.goes_on(scene.dice.uniform(0.2, scene.patience_s / 3))):
            return


ANSWERS_LOST = _requests(faults.lose_answer, "answer lost", 0.2, method="PUT|POST|DELETE")
REFUSALS = (
    _refused(faults.SKEWED, "RequestTimeTooSkewed"),
    _refused(faults.EXPIRED, "ExpiredToken"),
)
WEATHERS: tuple[Weather, ...] = (
    _requests(faults.SLOW_DOWN, "throttled", 0.25),
    _requests(faults.SERVER_ERROR, "error 500", 0.2),
    _requests(faults.reset, "reset", 0.2),
    ANSWERS_LOST,
    _requests(faults.slow(400_000), "slow bodies", 0.5),
    _requests(faults.truncate, "truncated", 0.2, method="GET"),
    *REFUSALS,
    an_answer_that_never_comes,
    s3_away,
    s3_killed,
    clock_jumps,
)


def name_of(trouble: Blow | Weather) -> str:
    """As the table has it."""
    return trouble.__name__.replace("_", " ")
