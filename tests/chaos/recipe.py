"""The jobs that are hunted: small, deterministic, with all that draws at random; and what a run of one left
that met no fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rectrain_api.records import CheckpointRecord, FinalRecord
from tests.support.plans import make_manifest
from tests.support.trainer import TRAIN_SAMPLES, Place

BATCH = 4
STEPS_PER_EPOCH = TRAIN_SAMPLES // BATCH
INTERVAL = 10
"""Steps between checkpoints: no divisor of an epoch's, so that both kinds of snapshot come."""


NANO = {"preset": "svtr_nano", "overrides": {"Optimizer.lr.warmup_epoch": "1"}}
"""Dropout and stochastic depth, warm-up."""
SIZES = {
    "preset": "crnn_mv3",
    "overrides": {
        "augment": "RecAug",
        "Optimizer.lr.warmup_epoch": "1",
        "sampler.scales": "[[64,32],[100,32],[160,32]]",
        "sampler.fix_bs": "true",
        "ema.decay": "0.95",
    },
}
"""Batches of several sizes, augmentation, and an average of the weights."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """So many epochs of a model, an evaluation after each."""

    model: Mapping[str, Any]
    epochs: int

    @property
    def steps(self) -> int:
        return self.epochs * STEPS_PER_EPOCH

    def manifest(self, train: str, uri: str, workers: int) -> dict[str, Any]:
        return make_manifest(
            train=train,
            uri=uri,
            epochs=self.epochs,
            batch_size=BATCH,
            interval=INTERVAL,
            workers=workers,
            model=dict(self.model),
            training={"deterministic": True},
            runPolicy={"terminationGraceSeconds": 30},
        )


SUMS = "SHA256SUMS"
GRAPH = "inference.json"
"""Its names are numbered by how many models the process has built: a resumed run may build one more."""
Row = dict[str, Any]
TRAIN_FIELDS = ("step", "epoch", "loss", "learningRate")
EVAL_FIELDS = (
    "step",
    "epoch",
    "accuracy",
    "normEditDistance",
    "characterErrorRate",
    "upstreamAcc",
    "samples",
)


@dataclass(frozen=True)
class Outcome:
    """What must be the same, whatever happened on the way."""

    weights: dict[str, str]
    """sha256 of the last checkpoint's parameters and optimizer state."""
    checkpoints: dict[int, set[tuple[str, str]]]
    """The same of every checkpoint ever committed, by step: name and sha256."""
    export: dict[str, str]
    """sha256 of each file of the exported model but its graph, and the hashes that hold its own."""
    best: tuple[int, float]
    """Step and accuracy."""
    training: list[Row]
    """One row for each step."""
    evaluations: list[Row]
    report: list[Row]
    """The evaluations as report.json has them."""


def outcome_of(place: Place) -> Outcome:
    """Of a run that is complete. Raises KeyError or StopIteration where something is missing."""
    state = place.state()
    records = place.records()
    final = next(r for r in records if isinstance(r, FinalRecord))
    checkpoints: dict[int, set[tuple[str, str]]] = {}
    for record in records:
        if isinstance(record, CheckpointRecord):
            weights = {(f.name, f.sha256) for f in record.files if f.name.startswith("model.")}
            checkpoints.setdefault(record.step, set()).update(weights)
    assert final.best is not None
    attempts = [place.metrics(start.attempt) for start in state.starts]
    return Outcome(
        weights=dict(sorted(checkpoints[final.step])),
        checkpoints=checkpoints,
        export={f.name: f.sha256 for f in final.export_files if f.name not in (GRAPH, SUMS)},
        best=(final.best.step, final.best.accuracy),
        training=merged(attempts, "train", TRAIN_FIELDS),
        evaluations=merged(attempts, "eval", EVAL_FIELDS),
        report=place.report()["evaluations"],
    )


def merged(attempts: list[list[Row]], kind: str, fields: tuple[str, ...]) -> list[Row]:
    """Rows of a kind over all attempts: from its first training step on, a later attempt's are what counts.

    An evaluation made again at the same step (of the very same weights) counts once, if it found the same.
    Worked out anew, since the trainer's own merging of rows is one of the things that are checked.
    """
    kept: list[Row] = []
    for rows in attempts:
        first = min((r["step"] for r in rows if r["kind"] == "train"), default=None)
        if first is not None:
            kept = [r for r in kept if r["step"] < first]
        new = [{name: r[name] for name in fields} for r in rows if r["kind"] == kind]
        kept += [r for r in new if kind == "train" or r not in kept]
    return kept
