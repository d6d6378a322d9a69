"""Which checkpoint of another run is taken, also while that run goes on; what a file of weights may be."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml

from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.plan import PretrainedPlan
from rectrain_api.records import (
    BestRecord,
    CheckpointRecord,
    RetireRecord,
    StoredFile,
)
from rectrain_api.run_log import RunLog
from rectrain_data.transfer import Corrupt, Download, sha256_bytes
from rectrain_trainer.model import build_model
from rectrain_trainer.pretrained import Given, _of_run, _read, arrays_of, fitted
from rectrain_trainer.snapshot_files import PARAMS, load_arrays
from tests.support.memory_store import MemoryStore
from tests.support.plans import make_plan
from tests.unit.trainer_learn.recipes import make_recipe

Which = Any


class Running(MemoryStore):
    """A run that does something just before each download, as long as there is something."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[Callable[[], None]] = []

    def download_all(self, items: Iterable[Download]) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        super().download_all(items)


class Bench:
    """Another run, and a look at it."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = Running(), folder
        self.log = RunLog(self.store, self.store.uri)
        self.log.start(make_plan(), now="t", job_uid="", pod_uid="", check=lambda _: None)

    def commit(self, step: int, accuracy: float | None = None, *, best: bool = False) -> None:
        path = self.folder / PARAMS
        paddle.save({"w": paddle.full([2], step)}, str(path))
        config = yaml.safe_dump({"dictionary": ["a", "b"], "useSpaceChar": True}).encode()
        files, prefix = {PARAMS: path.read_bytes(), "config.yml": config}, f"attempts/0001/step-{step:06d}"
        for name, data in files.items():
            self.store.put(f"{prefix}/{name}", data)
        stored = [StoredFile(name=n, size=len(d), sha256=sha256_bytes(d)) for n, d in files.items()]
        at: dict[str, Any] = {"attempt": 1, "time": "t", "prefix": prefix, "step": step, "epoch": 1}
        self.log.append(CheckpointRecord(**at, files=stored, accuracy=accuracy))
        if best:
            self.log.append(BestRecord(**at, accuracy=accuracy))

    def retire(self, step: int) -> None:
        prefix = f"attempts/0001/step-{step:06d}"
        self.log.append(RetireRecord(attempt=1, time="t", prefixes=[prefix]))
        for name in (PARAMS, "config.yml"):
            del self.store.objects[f"{prefix}/{name}"]

    def take(self, checkpoint: Which = "Best") -> Given:
        named = PretrainedPlan(uri=self.store.uri, checkpoint=checkpoint)
        return _of_run(named, lambda _: self.store, self.folder / "taken")  # type: ignore[arg-type, return-value]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_best_and_the_newest(bench: Bench) -> None:
    bench.commit(5, 0.75, best=True)
    bench.commit(9)
    best, newest = bench.take(), bench.take("Latest")
    assert (best.arrays["w"][0], best.source) == (5, f"{bench.store.uri} (step 5, accuracy 75.0%)")
    assert (newest.arrays["w"][0], newest.source) == (9, f"{bench.store.uri} (step 9)")
    assert best.characters == ("a", "b", " ")


def test_a_checkpoint_retired_while_it_is_fetched(bench: Bench) -> None:
    bench.commit(1)

    def go_on(step: int) -> None:
        bench.commit(step + 1)
        bench.retire(step)

    bench.store.meanwhile = [lambda: go_on(1), lambda: go_on(2)]
    assert bench.take("Latest").arrays["w"][0] == 3


def test_a_run_that_is_always_faster_ends_in_a_sentence(bench: Bench) -> None:
    bench.commit(1)
    steps = iter(range(1, 100))

    def go_on() -> None:
        step = next(steps)
        bench.commit(step + 1)
        bench.retire(step)

    bench.store.meanwhile = [go_on] * 99
    with pytest.raises(InputMissing, match=r"didn't come whole \(.*step-\d+/model.pdparams isn't there\): "):
        bench.take("Latest")
    assert len(bench.store.meanwhile) > 90


def test_a_damaged_checkpoint_is_named(bench: Bench) -> None:
    bench.commit(1)
    bench.store.objects[f"attempts/0001/step-000001/{PARAMS}"] = b"other"
    with pytest.raises(Corrupt, match=r"step 1 .*step-000001/model\.pdparams.*\.checkpoint: Best"):
        bench.take("Latest")


def test_a_run_without_a_checkpoint(bench: Bench) -> None:
    with pytest.raises(InputMissing, match="has no checkpoint yet: wait until it has one"):
        bench.take()
    bench.commit(1)
    with pytest.raises(InputMissing, match=r"no best checkpoint yet: .*pretrained\.checkpoint: Latest"):
        bench.take()


@pytest.mark.parametrize("config", [b"", b"[1]", b"dictionary: 3\nuseSpaceChar: true", b"a: [", b"\xff\xfe"])
def test_a_checkpoint_that_does_not_say_what_it_reads(bench: Bench, config: bytes) -> None:
    bench.commit(1)
    [record] = bench.log.state.checkpoints
    record.files[1] = StoredFile(name="config.yml", size=len(config), sha256=sha256_bytes(config))
    bench.store.objects = {
        key: config if key.endswith("config.yml") else data for key, data in bench.store.objects.items()
    }
    bench.store.objects["log/00000002.json"] = record.model_dump_json(by_alias=True).encode()
    with pytest.raises(InvalidSpec, match=r"config\.yml doesn't say which characters"):
        bench.take("Latest")


def test_a_pair_of_name_and_array_is_an_array(tmp_path: Path) -> None:
    """So paddle.save writes tensors that aren't at the top of what it saves."""
    array = np.ones(2)
    found = arrays_of({"w": ("linear_0.w_0", array), "StructuredToParameterName@@": {"w": "x"}, "n": 1})
    assert list(found) == ["w"]
    assert found["w"] is array
    paddle.save({"w": paddle.ones([2]), "nested": {"w": paddle.ones([2])}}, str(tmp_path / "w.pdparams"))
    assert list(arrays_of(load_arrays(tmp_path / "w.pdparams"))) == ["w"]


def test_weights_of_a_run_that_diverged(bench: Bench) -> None:
    bench.commit(1)
    paddle.save({"w": paddle.to_tensor([1.0, float("nan")])}, str(bench.folder / PARAMS))
    with pytest.raises(InvalidSpec, match="s3://a/b can't be started from: its w isn't finite"):
        _read(bench.folder / PARAMS, "s3://a/b")


def test_of_a_distillation_the_student_is_taken() -> None:
    mine, teachers = np.ones(2), np.zeros(2)
    assert arrays_of({"Student.w": mine, "Teacher.w": teachers, "Student2.w": teachers}) == {"w": mine}


@pytest.mark.parametrize(
    ("characters", "said"),
    [
        (["x", "1"], None),
        (
            list("xyz"),
            "RD026 at s3://a/run (CTC head: 0 of 10 characters carried over): no character is carried over "
            "from the weights to start from, so that reading is learnt anew; see that they are the ones you "
            "mean, and name their dictionary (model.pretrained.dictionary)",
        ),
    ],
)
def test_a_head_of_which_nothing_is_taken_over_is_a_finding(characters: list[str], said: str | None) -> None:
    model = build_model(make_recipe(characters=characters))
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = fitted(make_recipe(), Given(arrays, tuple(characters), "s3://a/run")).finding
    assert (str(found) if found else None) == said
    assert found is None or not found.is_error
