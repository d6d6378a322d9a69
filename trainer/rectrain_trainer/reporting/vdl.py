"""VisualDL's log of a run, `vdl/` at its place: PaddleOCR's own tags, so that its users find their curves.

Written anew from the metrics in S3, at checkpoints and at the end, by VisualDL's own writer in a process of
its own (`vdl_process`): it prints, starts threads and writes into the home directory.
"""

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rectrain_data.transfer import Store
from rectrain_trainer.curves import Row
from rectrain_trainer.reporting.keys import VDL

log = logging.getLogger(__name__)

POINTS: Final = 20_000
"""Steps that are written; of more, every so many."""
LIMIT_S: Final = 120.0
_TRAIN: Final = {"loss": "TRAIN/loss", "learningRate": "TRAIN/lr", "samplesPerSecond": "TRAIN/ips"}
_EVAL: Final = {
    "upstreamAcc": "EVAL/acc",
    "upstreamNormEditDis": "EVAL/norm_edit_dis",
    "accuracy": "EVAL/accuracy",
    "characterErrorRate": "EVAL/character_error_rate",
}
_TAGS: Final = {"train": _TRAIN, "eval": _EVAL}

Scalar = tuple[str, int, float, float]
"""Tag, step, value, time [s]."""


def write_vdl(store: Store, rows: Sequence[Row]) -> None:
    """Write and upload the log of these rows. What VisualDL can't do is a line of the log."""
    if find_spec("visualdl") is None:
        log.info("No VisualDL log is written: the package visualdl isn't installed.")
        return
    with tempfile.TemporaryDirectory(prefix="rectrain-vdl-") as scratch:
        folder = Path(scratch)
        source, target = folder / "scalars.jsonl", folder / "vdlrecords.log"
        source.write_text("".join(f"{json.dumps(one)}\n" for one in scalars(rows)))
        done = subprocess.run(
            [sys.executable, "-m", "rectrain_trainer.reporting.vdl_process", str(source), str(target)],
            env=os.environ | {"HOME": scratch},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            log.warning("VisualDL's log couldn't be written: %s", said)
            return
        store.put_bytes(VDL, target.read_bytes())


def scalars(rows: Sequence[Row]) -> Iterator[Scalar]:
    """What is written, thinned to POINTS steps; every evaluation stays. Pure."""
    every = -(-sum(row["kind"] == "train" for row in rows) // POINTS) or 1
    trained, best = 0, float("-inf")
    for row in rows:
        if row["kind"] == "train":
            trained += 1
            if (trained - 1) % every:
                continue
        at = row.get("time")
        time = float(at) if isinstance(at, int | float) else 0.0
        for name, tag in _TAGS.get(row["kind"], {}).items():
            if (value := _number(row.get(name))) is not None:
                yield tag, row["step"], value, time
                if tag == "EVAL/acc":
                    best = max(best, value)
                    yield "EVAL/best_acc", row["step"], best, time


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None
