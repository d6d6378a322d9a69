"""A run killed or told to stop at any moment, any number of times, ends as if nothing had happened.

In this process, against a store in memory, so that the moments are exact; `tests/chaos` does the same to
real processes. Weights, moments, curves, evaluations and the best are compared with those of a quiet run.
"""

import itertools
import json
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import Diverged, Interrupted, PeerLost, StoreUnavailable
from rectrain_api.records import (
    CheckpointRecord,
    PlanChange,
    parse_record,
    record_key,
)
from rectrain_api.run_log import RunLog
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Upload
from rectrain_trainer import offers
from rectrain_trainer import train as train_module
from rectrain_trainer.board import Board
from rectrain_trainer.checkpoint import Committer
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.config import Recipe
from rectrain_trainer.curves import merge, rows_in
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.evaluate import evaluate as real_evaluate
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState
from rectrain_trainer.ranks import Ranks
from rectrain_trainer.segments import Segments
from tests.support.memory_store import MemoryStore, SimulatedCrash
from tests.support.plans import make_plan
from tests.unit.trainer_learn.recipes import RECAUG, loose, make_recipe

RECIPE = make_recipe(epochs=3, augment=[RECAUG], overrides={"Optimizer.lr.warmup_epoch": "1"})
STEPS = 7
"""Steps an epoch: 50 images in batches of 8."""
ACCURACY = {STEPS: 0.2, 2 * STEPS: 0.6, 3 * STEPS: 0.5, 4 * STEPS: 0.4}
"""As if: so little training reads nothing."""
KINDS = ("train", "eval")
TIMES = ("time", "seconds", "samplesPerSecond", "dataWaitPercent")


@dataclass
class Fate:
    """What happens to one attempt, and when."""

    kill_at_step: int = 0
    steps_left: int = 0
    """Killed after so many steps, whichever they are."""
    stop_at_step: int = 0
    """SIGTERM."""
    kill_in_evaluation: int = 0
    stop_in_evaluation: int = 0
    """In the evaluation after this step."""
    kill_at_record: tuple[str, int] = ("", 0)
    """The pod is gone when it appends a record of this kind and step, which the store has by then…"""
    lost: bool = False
    """…or not."""


class Pod:
    """A store as one pod sees it: it can die, and then writes nothing more."""

    def __init__(self, store: MemoryStore, fate: Fate) -> None:
        self.store, self.fate = store, fate
        self.prefix = ""
        self.dead = False

    def at(self, prefix: str) -> "Pod":
        deeper = Pod(self.store, self.fate)
        deeper.prefix, deeper.parent = prefix, self  # type: ignore[attr-defined]
        return deeper

    def put_bytes(self, key: str, data: bytes) -> None:
        if self.parent.dead:  # type: ignore[attr-defined]
            raise StoreUnavailable("The pod is gone.")  # its thread lives on in this process
        self.store.put(self.prefix + key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._live()
        record = json.loads(data)
        if (record["kind"], record.get("step")) == self.fate.kill_at_record:
            self.dead = True
            if not self.fate.lost:
                self.store.create(key, data)
            raise SimulatedCrash
        return self.store.create(key, data)

    def __getattr__(self, name: str) -> Any:
        self._live()
        return getattr(self.store, name)

    def _live(self) -> None:
        if self.dead:
            raise SimulatedCrash


class Mortal(Committer):
    """Dies, or is told to stop, after a given step."""

    after_step: Callable[[], None]

    def check(self) -> None:
        super().check()
        self.after_step()


class Seen(Segments):
    """The state may be looked at while it is trained."""

    def _resumed(self, *arguments: Any) -> TrainState:
        self.state = super()._resumed(*arguments)
        return self.state

    def step(self) -> int:
        return self.state.position.step


@dataclass
class Run:
    """A run over its attempts."""

    digits: Path
    folder: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    recipe: Recipe = RECIPE
    raised: int = 0
    """To so many epochs, from the first epoch's end on."""
    workers: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of spec.training."""
    accuracy: Mapping[int, float] = field(default_factory=lambda: ACCURACY)
    """By step."""
    first: dict[str, Any] | None = None
    """model.pretrained's weights."""

    def attempt(self, monkeypatch: pytest.MonkeyPatch, fate: Fate) -> TrainState | None:
        """One pod; the state at the end, None when it didn't get there."""
        pod = Pod(self.store, Fate())
        log = RunLog(pod, pod.uri)
        plan = make_plan(epochs=self.recipe.epochs, interval=3, training=self.training)
        log.start(plan, now="t", job_uid="", pod_uid="", check=lambda _: None)
        pod.fate = fate
        interrupt, chunks, board = Interrupt(30), Chunks(), Board(pod.uri)
        chunks.start(pod, log.attempt)  # type: ignore[arg-type]
        source = loose(self.digits)
        with Loader(self.recipe, source, workers=self.workers) as loader:

            def new_committer() -> Mortal:
                committer = Mortal(
                    log,
                    pod,
                    board,
                    chunks.store_metrics,
                    folder=self.folder / f"snapshots-{log.attempt}",
                    config=b"config",
                    keep_last=2,
                )
                committer.after_step = after_step
                committer.start()
                return committer

            segments = Seen(
                plan,
                self.recipe,
                Ranks(),
                log,
                pod,  # type: ignore[arg-type]
                self.folder / "resume",
                board,
                chunks,
                interrupt,
                loader,
                EvalSet(self.recipe, source),
                self.first,
                new_committer,
                lambda: max(self.recipe.epochs, self.raised),
            )

            def after_step() -> None:
                fate.steps_left -= 1
                step = segments.step()
                if step == fate.kill_at_step or not fate.steps_left:
                    raise SimulatedCrash
                if step == fate.stop_at_step:
                    interrupt._on_signal(signal.SIGTERM, None)

            def evaluate(*arguments: Any) -> Any:
                step = segments.step()
                if step == fate.kill_in_evaluation:
                    raise SimulatedCrash
                if step == fate.stop_in_evaluation:
                    interrupt._on_signal(signal.SIGTERM, None)
                return replace(real_evaluate(*arguments), accuracy=self.accuracy[step])

            monkeypatch.setattr(train_module, "evaluate", evaluate)
            try:
                state = segments.train()
            except SimulatedCrash:
                pod.dead = True
                return None
            except Interrupted:
                chunks.close()
                return None
        chunks.close()
        return state

    def log(self) -> RunState:
        return RunLog(self.store, self.store.uri).read()

    def curve(self) -> list[dict[str, Any]]:
        attempts = [rows_in(self, start.attempt) for start in self.log().starts]  # type: ignore[arg-type]
        return [{k: v for k, v in row.items() if k not in TIMES} for row in merge(attempts)]

    def list_keys(self, prefix: str) -> Sequence[str]:
        return self.store.list_keys(prefix)

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        return self.store.get_all(keys)

    def result(self) -> dict[str, Any]:
        """What must not depend on what happened."""
        log = self.log()
        last = log.newest_first()[0]
        best = log.best
        assert best is not None
        return {
            "files": {f.name: f.sha256 for f in last.files if f.name != "config.yml"},
            "curve": self.curve(),
            "best": (best.accuracy, best.step, best.epoch),
            "at": (last.step, last.epoch, last.accuracy),
        }


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "FIRST_WAIT_S", 0.01)


@pytest.fixture(scope="module")
def quiet(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run that nothing happens to."""
    run = Run(digits, tmp_path_factory.mktemp("quiet"))
    with pytest.MonkeyPatch.context() as patch:
        assert run.attempt(patch, Fate()) is not None
    result = run.result()
    train = [row["step"] for row in result["curve"] if row["kind"] == "train"]
    assert train == list(range(1, 3 * STEPS + 1))
    assert [row["step"] for row in result["curve"] if row["kind"] == "eval"] == [STEPS, 2 * STEPS, 3 * STEPS]
    return result


def test_train_and_validation_figures_share_no_name(quiet: dict[str, Any]) -> None:
    names = {kind: {name for row in quiet["curve"] if row["kind"] == kind for name in row} for kind in KINDS}
    assert names["train"] & names["eval"] == {"kind", "step", "epoch"}
    assert {"accuracy", "accuracyAsTrained", "characterErrorRate", "upstreamAcc"} < names["eval"]


AIMED = {
    "between-checkpoints": [Fate(kill_at_step=5)],
    "last-step-of-an-epoch": [Fate(kill_at_step=STEPS)],
    "in-an-evaluation": [Fate(kill_in_evaluation=STEPS)],
    "stopped-in-an-evaluation": [Fate(stop_in_evaluation=STEPS), Fate(stop_in_evaluation=2 * STEPS)],
    "stopped-in-the-last-evaluation": [Fate(stop_in_evaluation=3 * STEPS)],
    "stopped": [Fate(stop_at_step=4), Fate(stop_at_step=STEPS), Fate(stop_at_step=8)],
    "stopped-at-the-end": [Fate(stop_at_step=3 * STEPS)],
    "after-the-files-before-the-record": [Fate(kill_at_record=("checkpoint", 6), lost=True)],
    "between-checkpoint-and-best": [Fate(kill_at_record=("checkpoint", STEPS))],
    "before-a-better-best-is-there": [Fate(kill_at_record=("best", 2 * STEPS), lost=True)],
    "after-the-last-record": [Fate(kill_at_record=("checkpoint", 3 * STEPS))],
}


@pytest.mark.parametrize("fates", [pytest.param(fates, id=name) for name, fates in AIMED.items()])
def test_an_aimed_blow(
    digits: Path, tmp_path: Path, quiet: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fates: list[Fate]
) -> None:
    run = Run(digits, tmp_path)
    for fate in fates:
        assert run.attempt(monkeypatch, fate) is None, "it wasn't hit"
    assert run.attempt(monkeypatch, Fate()) is not None
    assert run.result() == quiet


@pytest.mark.parametrize(("seed", "workers"), [(1, 0), (2, 0), (3, 2)])
def test_blows_at_random(
    digits: Path,
    tmp_path: Path,
    quiet: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    workers: int,
) -> None:
    chance = random.Random(seed)
    run = Run(digits, tmp_path, workers=workers)
    for _ in range(4):
        step = chance.randint(1, 3 * STEPS)
        fate = chance.choice(
            [Fate(kill_at_step=step), Fate(stop_at_step=step), Fate(kill_in_evaluation=STEPS)]
        )
        if run.attempt(monkeypatch, fate) is not None:
            break
    assert run.attempt(monkeypatch, Fate()) is not None
    assert run.result() == quiet


def test_more_epochs_in_a_running_pod(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the end of the epoch on; and an attempt that follows goes on with them."""
    whole = Run(digits, tmp_path / "whole", raised=4)
    assert whole.attempt(monkeypatch, Fate()) is not None
    assert whole.log().newest_first()[0].step == 4 * STEPS
    (change,) = (r for r in records(whole) if isinstance(r, PlanChange))
    assert (change.was, change.epochs, change.step) == (3, 4, STEPS)
    rates = [row["learningRate"] for row in whole.curve() if row["kind"] == "train"]
    assert rates == schedule(RECIPE)[:STEPS] + schedule(replace(RECIPE, epochs=4))[STEPS:]

    killed = Run(digits, tmp_path / "killed", raised=4)
    assert killed.attempt(monkeypatch, Fate(kill_at_step=2 * STEPS + 3)) is None
    killed.recipe = replace(RECIPE, epochs=4)  # of the run plan that the next pod reads
    assert killed.attempt(monkeypatch, Fate()) is not None
    assert killed.result() == whole.result()
    assert sum(isinstance(r, PlanChange) for r in records(killed)) == 1


@pytest.mark.parametrize("failure", [Diverged("NaN"), PeerLost("gone"), RuntimeError("of Paddle's")])
def test_what_waits_is_committed_when_training_breaks_off(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """And the log is handed back, so that it can say how the attempt ended."""
    run = Run(digits, tmp_path, training={"onNaN": "Fail"})
    uploading = threading.Event()

    def upload(pod: Pod, items: Iterable[Upload], *, limit: int = 8) -> int:
        assert uploading.wait(10)
        return run.store.upload_all(items, limit=limit)

    def after_step(committer: Mortal) -> None:
        if next(steps) == 4:
            threading.Timer(0.2, uploading.set).start()
            raise failure

    steps, committers = itertools.count(1), []
    monkeypatch.setattr(Pod, "upload_all", upload, raising=False)
    monkeypatch.setattr(Mortal, "check", after_step)
    start = Mortal.start
    monkeypatch.setattr(Mortal, "start", lambda self: (committers.append(self), start(self)))
    with pytest.raises(type(failure)):
        run.attempt(monkeypatch, Fate())
    assert [c.step for c in run.log().checkpoints] == [3]
    assert not committers[0].has_log


def test_told_to_stop_behind_the_last_step(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks between two steps any more: it isn't taken for a run that may wait ten minutes."""
    run, batches = Run(digits, tmp_path), Loader.batches
    waits: list[float] = []
    finish = Committer.finish

    def to_the_end(self: Loader, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from batches(self, epoch, start)
        if epoch == RECIPE.epochs - 1:
            interrupts[0]._on_signal(signal.SIGTERM, None)

    def noted(self: Committer, wait_s: float) -> Any:
        waits.append(wait_s)
        return finish(self, wait_s)

    interrupts: list[Interrupt] = []
    init = Interrupt.__init__
    monkeypatch.setattr(
        Interrupt, "__init__", lambda self, grace_s: (interrupts.append(self), init(self, grace_s))[1]
    )
    monkeypatch.setattr(Loader, "batches", to_the_end)
    monkeypatch.setattr(Committer, "finish", noted)
    assert run.attempt(monkeypatch, Fate()) is None, "it went on"
    assert len(waits) == 1
    assert waits[0] < 30
    assert run.log().newest_first()[0].step == 3 * STEPS


def schedule(recipe: Recipe) -> list[float]:
    rate, rates = TrainState.new(recipe, STEPS).learner.rate, []
    for _ in range(recipe.epochs * STEPS):
        rates.append(rate.get_lr())
        rate.step()
    return rates


def records(run: Run) -> list[Any]:
    keys = run.store.list_keys("log/")
    assert keys == [record_key(n + 1) for n in range(len(keys))]
    return [parse_record(run.store.objects[key], key) for key in keys]


def test_a_checkpoint_knows_its_epoch(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(digits, tmp_path)
    assert run.attempt(monkeypatch, Fate()) is not None
    epochs = {r.step: r.epoch for r in records(run) if isinstance(r, CheckpointRecord)}
    assert [epochs[s] for s in (3, 6, STEPS, 9, 3 * STEPS)] == [1, 1, 1, 2, 3]
