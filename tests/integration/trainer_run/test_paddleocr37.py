"""A config of PaddleOCR 3.x is trained with 3.7's code base, to the exported model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rectrain_local.assets.cache import Cache
from tests.support.paddleocr37 import paddleocr_37
from tests.support.trainer import Place, Trainer
from tests.unit.trainer_learn.two_steps import SMALL

CONFIG = Path(__file__).parents[2] / "data" / "configs" / "ppocrv5_th.yaml"


@pytest.mark.chaos
def test_a_guided_config_trains_with_37s_code(
    trainer: Trainer, place: Place, manifest: Callable[..., dict[str, Any]], cache: Cache
) -> None:
    home = paddleocr_37(cache.root)
    place.store.put_bytes("th.yaml", CONFIG.read_bytes())
    model = {
        "preset": None,
        "config": {"uri": f"{place.uri}/th.yaml"},
        "overrides": SMALL | {"Global.use_ema": "true"},
    }
    ended = trainer.run(manifest(epochs=1, batch_size=16, model=model), PADDLEOCR_HOME=str(home))
    assert ended.code == 0, ended.errors
    assert str(home) in ended.errors, "the log names the code that trains"
    assert ended.result["model"]["uri"] == f"{place.uri}/export"
    losses = [row["loss"] for row in place.metrics(1) if row["kind"] == "train"]
    assert losses
    assert all(loss > 0 for loss in losses)
    assert b"th_PP-OCRv5_mobile_rec" in place.store.get_bytes("export/README.md")
