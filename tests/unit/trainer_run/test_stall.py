"""When a pulse that stands still is a stall."""

import pytest

from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.stacks import stacks
from rectrain_trainer.stall import Watch

TIMEOUT_S = 100.0


class Bench:
    """A watch over a pulse, and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.recorder = FlightRecorder.new()
        self.watch = Watch(self.recorder, TIMEOUT_S, clock=lambda: self.now)

    def after(self, seconds: float) -> bool:
        """Looked at as often as asked for meanwhile."""
        until, found = self.now + seconds, None
        while self.now < until and found is None:
            self.now += self.watch.every_s
            found = self.watch.look()
        return found is not None


def test_a_pulse_that_stands_still_for_the_timeout() -> None:
    bench = Bench()
    assert not bench.after(1000), "before the first step nothing is waited for"
    bench.recorder.beat(41)
    assert not bench.after(95)
    bench.recorder.beat(42)
    assert not bench.after(95)
    assert bench.after(20)
    stall = bench.watch.look()
    assert stall is not None
    assert stall.sentence == "No step, and no batch of an evaluation, for 2m after step 42"


def test_it_rests_between_signs_of_life_that_are_not_to_be_waited_for() -> None:
    bench = Bench()
    bench.recorder.beat(1)
    assert not bench.after(50)
    bench.recorder.rest()
    assert not bench.after(1000)
    bench.recorder.beat(1)
    assert not bench.after(95)
    assert bench.after(20)


def test_a_pod_that_was_frozen_has_not_stalled() -> None:
    """Both processes stood still, and the clock went on."""
    bench = Bench()
    bench.recorder.beat(1)
    assert not bench.after(50)
    bench.now += 3600
    assert bench.watch.look() is None
    assert not bench.after(20)
    assert bench.after(60)


def test_stacks_name_threads_and_functions() -> None:
    text = "\n".join(stacks())
    assert "Thread MainThread, most recent call last:" in text
    assert "in test_stacks_name_threads_and_functions" in text


@pytest.mark.parametrize("timeout_s", [1, 1800])
def test_looks_are_cheap_and_often_enough(timeout_s: float) -> None:
    watch = Watch(FlightRecorder.new(), timeout_s)
    assert 0.05 <= watch.every_s <= timeout_s / 10
