"""The loader's processes: same batches whatever their number, and none outlives the trainer."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rectrain_api.errors import DatasetInvalid
from rectrain_trainer.loader import Loader
from tests.unit.trainer_learn.recipes import RECAUG, loose, make_recipe
from tests.unit.trainer_learn.test_loader import same

ROOT = Path(__file__).parents[3]


def wait_until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_any_number_of_workers_gives_the_same_batches(digits: Path) -> None:
    recipe = make_recipe(augment=[RECAUG])
    shm = set(Path("/dev/shm").iterdir())
    with Loader(recipe, loose(digits)) as alone, Loader(recipe, loose(digits), workers=2) as helped:
        whole = list(alone.batches(0))
        assert same(whole, list(helped.batches(0)))
        begun = helped.batches(1)
        next(begun)
        begun.close()  # left in mid-epoch: what was under way must not turn up later
        assert same(whole[3:], list(helped.batches(0, start=3)))
    assert set(Path("/dev/shm").iterdir()) <= shm


def test_a_bad_sample_in_a_worker_is_the_same_error(tmp_path: Path) -> None:
    from tests.unit.trainer_learn.digits import make_digits

    make_digits(tmp_path, 6)
    (tmp_path / "images/00002.png").write_bytes(b"no image")
    with (
        Loader(make_recipe(batch_size=2), loose(tmp_path), workers=1) as loader,
        pytest.raises(DatasetInvalid, match="line 3"),
    ):
        list(loader.batches(0))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_the_trainer(digits: Path, end: signal.Signals) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.trainer_learn.hold_loader", str(digits)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout is not None
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(workers) == 2
    trainer.send_signal(end)
    trainer.wait(30)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
