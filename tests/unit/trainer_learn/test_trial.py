"""The step that is tried before training: which one, what its end means, and what fits instead."""

import random
import signal
from pathlib import Path

import numpy as np
import paddle
import pytest

from rectrain_api.errors import BatchTooLarge, InternalError, InvalidSpec
from rectrain_api.plan import RunPlan
from rectrain_api.presets import SamplerConfig
from rectrain_data.dictionary import Dictionary
from rectrain_trainer import memory
from rectrain_trainer import trial as trials
from rectrain_trainer.apart import Answer, Apart
from rectrain_trainer.board import Board
from rectrain_trainer.memory import Room
from rectrain_trainer.stage import Staged
from rectrain_trainer.trial import OneStep, Shape, Trial, largest_shape, largest_that_fits, too_large
from rectrain_trainer.uris import UriMap
from tests.support.plans import make_plan
from tests.unit.trainer_learn.recipes import DIGITS, loose, make_recipe

GIB = 1 << 30


@pytest.mark.parametrize(
    ("scales", "fixed", "most", "shape"),
    [
        ([(100, 32)], False, 1000, Shape(8, 100, 32)),
        ([(100, 32), (320, 32)], True, 1000, Shape(8, 320, 32)),  # as many, and larger
        ([(100, 32), (99, 32)], False, 1000, Shape(8, 100, 32)),  # 8 of 99 pixels: a little less
        ([(100, 32), (900, 32)], False, 1000, Shape(1, 900, 32)),  # one at least: larger than the first
        ([(100, 32), (320, 32)], False, 5, Shape(2, 320, 32)),  # there are only 5: 2 wide ones are more
        ([(100, 32)], False, 5, Shape(5, 100, 32)),
    ],
)
def test_the_largest_shape(scales: list[tuple[int, int]], fixed: bool, most: int, shape: Shape) -> None:
    config = SamplerConfig(scales=scales, fix_bs=fixed)
    assert largest_shape(config, 8, most) == shape


@pytest.mark.parametrize("most", [0, 1, 2, 3, 31, 32, 33, 612, 4095, 8191])
def test_the_largest_batch_that_fits_is_found_closely_in_few_tries(most: int) -> None:
    tried = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= most

    low, high = largest_that_fits(fits, 8192)
    assert low <= most < high
    assert high - low <= max(1, low // 32)
    assert len(tried) == len(set(tried)) <= trials.MAX_TRIES


TOO_LARGE = [
    (
        (612, 613, Room(0, GIB, "pod"), ""),
        "this pod has (limit 1.0 GiB): the largest batch that fits is 612; lower training.batchSize, or "
        "raise replicas.resources.limits.memory.",
    ),
    (
        (608, 620, Room(3 * GIB, None, "machine"), ""),
        "this machine has left (3.0 GiB): the largest batch that fits is about 608; lower "
        "training.batchSize, or use one with more memory.",
    ),
    (
        (7, 8, Room(0, GIB, "process"), ""),
        "this process may have (limit 1.0 GiB): the largest batch that fits is 7; lower training.batchSize, "
        "or raise that limit (ulimit -d).",
    ),
    (
        (64, 65, Room(0, None, "gpu"), "NVIDIA T4, 14.6 GiB"),
        "the GPU has (NVIDIA T4, 14.6 GiB): the largest batch that fits is 64; lower training.batchSize, or "
        "train on GPUs with more memory.",
    ),
    (
        (0, 1, Room(0, GIB, "pod"), ""),
        "this pod has (limit 1.0 GiB), and so does one with a single image: raise "
        "replicas.resources.limits.memory.",
    ),
]


@pytest.mark.parametrize(("case", "said"), TOO_LARGE)
def test_what_is_said_of_a_batch_that_is_too_large(case: tuple[int, int, Room, str], said: str) -> None:
    step = "One training step with training.batchSize 8192 (images of 32x64) needs more memory than "
    assert too_large(8192, Shape(8192, 64, 32), *case) == step + said
    assert "batchSize 8192 (5 images of 32x64)" in too_large(8192, Shape(5, 64, 32), *case)


def failed(kind: str, said: str) -> Answer:
    return Answer({"error": kind, "said": said}, 0, "")


@pytest.mark.parametrize(
    "answer",
    [
        failed("MemoryError", "(ResourceExhausted) Fail to alloc memory of 12582912 size, error code is 12."),
        failed("MemoryError", "Unable to allocate 6.00 MiB for an array"),
        failed(
            "RuntimeError",
            "(error code is libmklml_intel.so: cannot make segment writable: Cannot allocate memory)",
        ),
        failed("OSError", "(External) CUBLAS error(3). CUBLAS_STATUS_ALLOC_FAILED"),
        Answer(None, -signal.SIGKILL, ""),
        Answer(None, -signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'"),
        Answer(None, -signal.SIGSEGV, ""),
        Answer(None, 1, "libgomp: Thread creation failed: Resource temporarily unavailable"),
    ],
)
def test_ends_that_mean_out_of_memory(answer: Answer) -> None:
    assert answer.out_of_memory


def test_other_failures_are_told_in_paddles_words() -> None:
    paddles = failed(
        "ValueError",
        "(InvalidArgument) The input of Op(Conv) should be 4-D.\n  [Hint: Expected 4 == 3.] (at /x.cc:4)",
    )
    assert not paddles.out_of_memory
    with pytest.raises(InvalidSpec) as refused:
        paddles.result()
    assert str(refused.value) == (
        "The model can't be trained with this configuration (ValueError: (InvalidArgument) The input of "
        "Op(Conv) should be 4-D)."
    )
    with pytest.raises(BatchTooLarge, match="of ours"):
        failed("BatchTooLarge", "one of ours").result()
    without = Answer(None, 3, "")
    assert not without.out_of_memory
    with pytest.raises(InternalError) as failure:
        without.result()
    assert str(failure.value) == (
        "A process that tries the model ended without an answer (exit code 3): --debug shows what it said."
    )


def test_the_room_of_a_pod_counts_its_files_in_the_page_cache_as_free(tmp_path: Path) -> None:
    cgroup, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    cgroup.mkdir()
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    (proc / "self/status").write_text("VmData:\t 100 kB\n")
    assert memory.room(cgroup, proc) == Room(4000 * 1024, None, "machine")
    (cgroup / "memory.max").write_text("max\n")
    assert memory.room(cgroup, proc).of == "machine"
    (cgroup / "memory.max").write_text("3000000\n")
    (cgroup / "memory.current").write_text("2500000\n")
    (cgroup / "memory.stat").write_text("anon 7\ninactive_file 300000\nactive_file 200000\n")
    assert memory.room(cgroup, proc) == Room(1_000_000, 3_000_000, "pod")


def staged(folder: Path) -> Staged:
    source = loose(folder)
    return Staged(source, source, Dictionary(tuple(DIGITS), use_space_char=False), UriMap())


def plan_of(batch_size: int) -> RunPlan:
    return make_plan(batch_size=batch_size)


def test_a_step_that_fits_leaves_no_trace_in_this_process(digits: Path) -> None:
    random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), paddle.get_rng_state()[0].current_seed()
    board = Board("s3://runs/x")
    with Trial(plan_of(16), board, wanted=True) as trial:
        trial.begin(make_recipe(batch_size=16), staged(digits))
        trial.conclude()
    after = random.getstate(), np.random.get_state()[1].tolist(), paddle.get_rng_state()[0].current_seed()
    assert before == after
    assert board.message == ""


def test_a_run_with_a_checkpoint_tries_nothing(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Apart, "start", lambda _self: pytest.fail("a process was started"))
    with Trial(plan_of(16), Board("s3://runs/x"), wanted=False) as trial:
        trial.begin(make_recipe(batch_size=16), staged(digits))
        trial.conclude()


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answer | None) -> None:
    """Every process apart ends so; None: not within the time."""

    def told(_self: Apart, limit_s: float | None = None) -> Answer:
        if answer is None:
            raise TimeoutError
        return answer

    for name in ("start", "close"):
        monkeypatch.setattr(Apart, name, lambda _self: None)
    monkeypatch.setattr(Apart, "ask", lambda _self, _work: None)
    monkeypatch.setattr(Apart, "answer", told)


def concluded(digits: Path) -> None:
    with Trial(plan_of(16), Board("s3://runs/x"), wanted=True) as trial:
        trial.begin(make_recipe(batch_size=16), staged(digits))
        trial.conclude()


def test_a_step_that_crashes_whatever_the_batch(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, Answer(None, -signal.SIGSEGV, ""))
    with pytest.raises(InternalError) as refused:
        concluded(digits)
    assert str(refused.value) == (
        "The step that is tried before training crashes (SIGSEGV), with a single image too: --debug shows "
        "what it said."
    )


def test_a_step_that_takes_too_long_is_no_reason_to_refuse(
    digits: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answering(monkeypatch, None)
    concluded(digits)
    assert [record.getMessage() for record in caplog.records] == [
        "A training step isn't done after 300 s: whether it fits is left open."
    ]


def test_a_step_within_too_little_memory(digits: Path) -> None:
    """Really tried: Paddle's own failure, whichever it is there, means that memory ran out."""
    with Apart(0, deterministic=False) as apart:
        apart.start()
        apart.ask(OneStep(make_recipe(batch_size=256), Shape(256, 64, 32), 150 << 20))
        assert apart.answer(120).out_of_memory
