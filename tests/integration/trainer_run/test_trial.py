"""The step that is tried before training: what it refuses, and that it leaves nothing behind."""

from collections.abc import Callable
from typing import Any

from tests.support.trainer import Place, Trainer

Manifest = Callable[..., dict[str, Any]]


def test_x(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    trainer.wrapper = ["prlimit", f"--data={900 << 20}"]
    ended = trainer.run(manifest(model={"preset": "crnn_mv3"}, batch_size=48, epochs=1), "--debug")
    print(ended.errors[-6000:])
    print(ended.message)
    assert 0
