"""A run's place in memory as trainers leave it: three attempts, a rollback, checkpoints, and labels of many
scripts and of somebody who means harm. For the tests of the report.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np

from rectrain_api.records import (
    AttemptEnd,
    AttemptStart,
    BestRecord,
    CheckpointRecord,
    FinalRecord,
    Record,
    RollbackRecord,
    StoredFile,
    attempt_prefix,
    record_key,
)
from rectrain_trainer.reporting.worst import thumbnail
from tests.support.memory_store import MemoryStore
from tests.support.plans import make_plan

HOSTILE: Final = """</script><script>alert(1)</script><img src=x onerror="alert(2)">'"&{{ 7*7 }}{% raw %}"""
TEXTS: Final = [
    ("น้ำตกห้วยแม่ขมิ้น", "น้ำตกห้วยแมขมิน"),
    ("السلام عليكم ورحمة الله", "السلام عليكم ورحمه"),
    ("Straße 42, Köln", "Strasse 42. Köln"),
    ("東京都港区芝公園", "東京都港区芝公圓"),
    (HOSTILE, HOSTILE.upper()),
    ("a" * 400, ""),
    ("٣٤٥ جنيه USD 12", "٣٤٦ جنيه USD 12"),
]
STEPS_PER_EPOCH, EPOCHS = 25, 8
TRAINED: Final = {1: (1, 70), 2: (61, 124), 3: (121, 200)}
"""Steps of each attempt."""
ROLLED_BACK: Final = (95, 80)
"""In the second attempt: where it was noticed, and the checkpoint gone back to."""


def time_of(step: int, attempt: int) -> str:
    minutes = step + 10 * attempt
    return f"2026-11-26T{8 + minutes // 60:02d}:{minutes % 60:02d}:00Z"


def told_run(*, finished: bool = True, hostile: bool = True) -> MemoryStore:
    """The place of a run; without its end when it isn't `finished`."""
    store = MemoryStore()
    plan = make_plan(name="thai-signs", epochs=EPOCHS)
    records: list[Record] = []
    for attempt, (first, last) in TRAINED.items():
        records.append(
            AttemptStart(
                attempt=attempt,
                time=time_of(first, attempt),
                identity=plan.identity,
                plan_hash=plan.plan_hash(),
                plan=plan.hashed_part(),
                epochs=EPOCHS,
            )
        )
        for step in range(first - first % 20 + 20, last + 1, 20):
            records.append(checkpoint(attempt, step))
            if step in ROLLED_BACK:
                records.append(
                    RollbackRecord(
                        attempt=attempt,
                        time=time_of(ROLLED_BACK[0], attempt),
                        step=ROLLED_BACK[0],
                        to_step=ROLLED_BACK[1],
                        factor=0.5,
                    )
                )
        put_rows(store, attempt, first, last)
        about(store, attempt, plan.to_dict(), hostile)
        if attempt == 2:
            records.append(
                AttemptEnd(attempt=2, time=time_of(last, 2), reason="Interrupted", step=last)
            )  # the first one was killed
    best = BestRecord.of(checkpoint(3, 200), accuracy_at(200), attempt=3, time=time_of(200, 3))
    records.append(best)
    if finished:
        metrics = {"accuracy": accuracy_at(200), "characterErrorRate": 0.031, "step": 200, "samples": 180}
        final = FinalRecord(
            attempt=3,
            time=time_of(203, 3),
            epochs=EPOCHS,
            step=200,
            export_prefix=f"{attempt_prefix(3)}export",
            export_files=[],
            best=best,
            metrics=metrics,
        )
        records.append(final)
        put(store, f"{attempt_prefix(3)}report/report.json", report_json())
        put(store, f"{attempt_prefix(3)}samples.json", {"step": 200, "samples": samples(hostile)})
    for number, record in enumerate(records, 1):
        store.objects[record_key(number)] = record.model_dump_json(by_alias=True, exclude_none=True).encode()
    return store


def checkpoint(attempt: int, step: int) -> CheckpointRecord:
    accuracy = accuracy_at(step) if step % STEPS_PER_EPOCH == 0 else None
    return CheckpointRecord(
        attempt=attempt,
        time=time_of(step, attempt),
        prefix=f"{attempt_prefix(attempt)}step-{step:06d}",
        step=step,
        epoch=1 + (step - 1) // STEPS_PER_EPOCH,
        files=[StoredFile(name="model.pdparams", size=12_345_678, sha256="0" * 64)],
        accuracy=accuracy,
    )


def accuracy_at(step: int) -> float:
    return round(0.93 * (1 - math.exp(-step / 60)), 4)


def loss_at(step: int) -> float:
    return 40 * math.exp(-step / 30) + 0.4 + 0.3 * math.sin(step * 1.7)


def put_rows(store: MemoryStore, attempt: int, first: int, last: int) -> None:
    rows: list[dict[str, Any]] = []
    steps: Sequence[int] = range(first, last + 1)
    if attempt == 2:
        noticed, back = ROLLED_BACK
        steps = [*range(first, noticed + 1), -1, *range(back + 1, last + 1)]
    for step in steps:
        if step < 0:
            rows.append({"kind": "rollback", "step": ROLLED_BACK[0], "toStep": ROLLED_BACK[1], "time": 0})
            continue
        rows.append(
            {
                "time": 1_795_680_000 + 60 * step,
                "kind": "train",
                "step": step,
                "epoch": 1 + (step - 1) // STEPS_PER_EPOCH,
                "loss": loss_at(step) if step != ROLLED_BACK[0] else math.nan,
                "learningRate": 0.001 * (1 + math.cos(math.pi * step / 200)) / 2,
                "samplesPerSecond": 310 + 20 * math.sin(step),
                "dataWaitPercent": 4.5,
            }
        )
        if step % STEPS_PER_EPOCH == 0:
            rows.append(
                {
                    "time": 1_795_680_000 + 60 * step + 20,
                    "kind": "eval",
                    "step": step,
                    "epoch": step // STEPS_PER_EPOCH,
                    "accuracy": accuracy_at(step),
                    "normEditDistance": min(1.0, accuracy_at(step) + 0.06),
                    "characterErrorRate": round(1 - accuracy_at(step), 4) / 3,
                    "upstreamAcc": accuracy_at(step) + 0.02,
                    "upstreamNormEditDis": 0.97,
                }
            )
    data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    store.objects[f"{attempt_prefix(attempt)}metrics/000001.jsonl"] = data


def about(store: MemoryStore, attempt: int, plan: dict[str, Any], hostile: bool) -> None:
    message = (
        "RD012 at s3://data/labels.txt line 7 (฿) and 11 more: labels have characters that the dictionary "
    )
    finding = {"code": "RD012", "severity": "Error", "count": 12, "message": f"{message}lacks."}
    losses = {"samples": 4000, "dropped": 3, "empty": 1, "tooLong": 2, "shortened": 12, "characters": 14}
    content = {
        "plan": plan,
        "checks": {
            "trainSamples": 4000,
            "evalSamples": 180,
            "leftOut": 15,
            "findings": [finding, finding | {"message": HOSTILE, "code": "RD022", "severity": "Warning"}][
                : 2 if hostile else 1
            ],
            "validation": "Warn",
            "checked": 4180,
            "imagesDecoded": 4180,
            "upstream": {
                "train": losses | {"swapped": 3},
                "eval": losses | {"samples": 180, "spaced": 40},
                "neverSeenByRanks": {"2": 1000, "4": 1266, "8": 1375},
                "neverSeenIn": "epoch",
            },
        },
        "environment": {
            "lines": [
                "Device: GPU NVIDIA L4, 22.0 GiB, CUDA 12.6",
                "Memory: 16.0 GiB, the limit of this container",
            ],
            "versions": ["rectrain 0.1.0", "paddlepaddle 3.3.1"],
            "system": "Linux 6.12, x86_64",
            "node": f"node-{attempt}",
        },
    }
    put(store, f"{attempt_prefix(attempt)}about.json", content)


def report_json() -> dict[str, Any]:
    wrong = [
        ("น", "บ", 14),
        ("้", "", 9),
        ("0", "O", 6),
        ("", " ", 5),
        ("ة", "ق", 4),
        ("<", "&", 2),
        ("l", "1", 2),
    ]
    return {
        "quality": {
            "gap": None,
            "spaceOnlyErrors": 2,
            "confusions": [{"label": a, "read": b, "count": n} for a, b, n in wrong],
            "byLength": [
                {"from": n, "to": n + 3, "samples": 45, "exact": 44 - n, "errors": 2 + n}
                for n in (1, 5, 9, 13)
            ],
            "byCharacter": [
                {"character": c, "occurrences": 40 + n, "right": 30 + n} for n, c in enumerate("น0ةl <&")
            ],
        }
    }


def samples(hostile: bool) -> list[dict[str, Any]]:
    texts = [pair for pair in TEXTS if hostile or (pair[0] != HOSTILE and len(pair[0]) < 100)]
    return [
        {
            "name": f"images/{number:05d}.jpg" if label != HOSTILE else HOSTILE,
            "label": label,
            "read": read,
            "confidence": 0.62,
            "distance": 3,
            "image": thumbnail(picture(len(label)), 48) if number != 4 else "javascript:alert(3)",
        }
        for number, (label, read) in enumerate(texts)
    ]


def picture(length: int) -> bytes:
    """A PNG with strokes, about as wide as a line of text of that length."""
    random = np.random.default_rng(length)
    pixels = np.full((64, max(64, 20 * min(length, 60)), 3), 245, np.uint8)
    for x in range(12, pixels.shape[1] - 12, 18):
        low, high = (int(v) for v in random.integers(12, 52, 2))
        cv2.line(pixels, (x, low), (x + 8, high), (40, 40, 40), 3)
    return bytes(cv2.imencode(".png", pixels)[1])


def put(store: MemoryStore, key: str, content: dict[str, Any]) -> None:
    store.objects[key] = json.dumps(content, ensure_ascii=False).encode()
