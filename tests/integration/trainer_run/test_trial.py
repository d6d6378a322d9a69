"""The step that is tried before training: what it refuses, and that it leaves nothing behind."""

import os
import re
import signal
from collections.abc import Callable
from typing import Any

from tests.support.processes import mentioning
from tests.support.trainer import Place, Trainer
from tests.support.waiting import wait_until

Manifest = Callable[..., dict[str, Any]]

WIDE = {"preset": "crnn_mv3", "overrides": {"sampler.scales": "[[800, 32]]"}}
"""About 100 MB an image."""
LIMIT = 1000 << 20
"""Of each process. About 670 MB of it are left for a step: well between six images and seven."""


def test_a_batch_that_does_not_fit_is_refused_and_the_one_that_it_names_trains(
    trainer: Trainer, manifest: Manifest, place: Place
) -> None:
    trainer.wrapper = ["prlimit", f"--data={LIMIT}"]
    ended = trainer.run(manifest(model=WIDE, batch_size=12, epochs=1))
    assert (ended.code, ended.result["reason"]) == (78, "BatchTooLarge"), ended.errors
    said = re.fullmatch(
        r"One training step with training\.batchSize 12 \(images of 32x800\) needs more memory than this "
        r"process may have \(limit 1000\.0 MiB\): the largest batch that fits is (\d+); lower "
        r"training\.batchSize, or raise that limit \(ulimit -d\)\.",
        ended.message,
    )
    assert said, ended.message
    assert "Traceback" not in ended.errors
    assert place.records() == [], "nothing was trained, so nothing is in the log"

    run = trainer.start(manifest(model=WIDE, batch_size=int(said[1]), epochs=1))
    run.until(lambda: place.store.list_keys("attempts/0001/metrics/"), "its first step")
    assert "BatchTooLarge" not in run.errors()


def test_sigterm_while_a_step_is_tried(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    run = trainer.start(manifest(model=WIDE, batch_size=48, epochs=1))
    run.until(lambda: "trying one training step" in run.errors(), "it tries a step")
    os.kill(run.process.pid, signal.SIGTERM)
    ended = run.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    assert place.records() == []
    assert "Traceback" not in ended.errors
    wait_until(lambda: not mentioning(str(run.termination)), 5, "a process is left behind")
