"""After training: the best weights, evaluated once more, exported, uploaded, and the record that says so.

Called by the run, when the log is the main thread's again. Everything counts from `final` on.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectrain_api.plan import RunPlan
from rectrain_api.records import FinalRecord, StoredFile, attempt_prefix
from rectrain_api.report import Stage
from rectrain_api.run_log import RunLog
from rectrain_api.run_state import RunState
from rectrain_api.status import ModelStatus, Reason
from rectrain_data.transfer import Store, Upload, sha256_file
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe
from rectrain_trainer.copies import REPORT, make_copies
from rectrain_trainer.curves import Row, evaluations
from rectrain_trainer.evaluate import EvalSet, evaluate
from rectrain_trainer.export import export
from rectrain_trainer.figures import Evaluation, quality
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loop import TrainState
from rectrain_trainer.model import build_decoder, build_model, set_params
from rectrain_trainer.model_card import write_card
from rectrain_trainer.place import now
from rectrain_trainer.reporting.keys import SAMPLES
from rectrain_trainer.reporting.make import make_report
from rectrain_trainer.reporting.worst import samples_json
from rectrain_trainer.resume import DAMAGED, fetch
from rectrain_trainer.snapshot import capture
from rectrain_trainer.train import epochs_begun, metrics_of, progress_of
from rectrain_trainer.uris import UriMap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """What publishing works with."""

    plan: RunPlan
    recipe: Recipe
    state: TrainState
    held_out: EvalSet
    run_log: RunLog
    store: Store
    board: Board
    interrupt: Interrupt
    folder: Path
    rows: Sequence[Row]
    """Of this attempt's metrics: its first step, and its evaluations."""
    evaluations: Mapping[int, Evaluation]
    """What this attempt has found, by step; not of every one."""
    checks: Mapping[str, Any]
    """What the checks before training found."""
    train_samples: int
    uris: UriMap
    """Of staged files."""


def publish(work: Publication) -> FinalRecord:
    """Evaluate, export and upload the best weights; append `final`; make the copies.

    Raises:
        ExportMismatch: the exported model doesn't read what the trained one read.
        Interrupted: told to stop; nothing of it counts until `final` is appended.
    """
    work.board.enter(Stage.EVALUATING, "evaluating the best weights")
    params, step = _best_params(work)
    found = work.evaluations.get(step) or _evaluate(work, params)
    work.board.enter(Stage.EXPORTING)
    exported = export(
        work.recipe,
        params,
        work.folder / "export",
        work.held_out,
        work.interrupt,
        onnx=work.plan.export.onnx,
    )
    work.interrupt.check()
    figures = {
        **found.figures(),
        "step": step,
        "parityImages": exported.parity.images,
        "parityEngines": list(exported.parity.engines),
    }
    early = _stopped_early(work)
    trained = dataclasses.replace(work.recipe, epochs=early or work.recipe.epochs)
    write_card(exported, work.plan, trained, figures, work.train_samples)
    prefix = attempt_prefix(work.run_log.attempt)
    export_prefix = f"{prefix}export"
    files = _upload(work.store, [exported.folder / name for name in exported.names], export_prefix)
    best = work.run_log.state.best
    final = FinalRecord(
        attempt=work.run_log.attempt,
        time=now(),
        epochs=work.recipe.epochs,
        step=work.state.position.step,
        export_prefix=export_prefix,
        export_files=files,
        stopped_early=early,
        best=best if best and work.run_log.state.checkpoint_at(best.prefix) else None,
        metrics=figures,
    )
    work.store.put_bytes(f"{prefix}{REPORT}", _report(work, final, found))
    work.store.put_bytes(
        f"{prefix}{SAMPLES}", samples_json(found.found.worst, work.held_out, step, work.uris)
    )
    work.interrupt.check()
    work.run_log.append(final)
    make_copies(work.store, work.run_log.state, final)
    work.board.update(report_uri=make_report(work.store, final.attempt))
    show_final(work.board, final, work.state.total_steps)
    return final


def _stopped_early(work: Publication) -> int | None:
    """The epoch in which training ended, if that wasn't the last one."""
    state = work.state
    early = state.position.step < state.total_steps
    return epochs_begun(state.position, work.recipe.epochs) if early else None


def _best_params(work: Publication) -> tuple[Mapping[str, Any], int]:
    """The best weights and their step; the last ones when no best checkpoint can be read."""
    state = work.run_log.state
    record = state.checkpoint_at(state.best.prefix) if state.best else None
    if record is not None and record.step != work.state.position.step:
        try:
            return fetch(record, work.store, work.folder / "best").params, record.step
        except DAMAGED as e:
            log.warning("The best checkpoint (step %d) is damaged; the last is exported: %s", record.step, e)
    return capture(work.state).params, work.state.position.step


def _evaluate(work: Publication, params: Mapping[str, Any]) -> Evaluation:
    model = build_model(work.recipe)
    set_params(model, params)
    decoder = build_decoder(work.recipe.characters, use_space_char=work.recipe.use_space_char)
    return evaluate(model, decoder, work.held_out)


def _upload(store: Store, files: Sequence[Path], prefix: str) -> list[StoredFile]:
    stored = [StoredFile(name=p.name, size=p.stat().st_size, sha256=sha256_file(p)) for p in files]
    store.upload_all(
        [Upload(p, f"{prefix}/{s.name}", s.sha256) for p, s in zip(files, stored, strict=True)], limit=4
    )
    return stored


def _report(work: Publication, final: FinalRecord, found: Evaluation) -> bytes:
    state = work.run_log.state
    earlier = [start.attempt for start in state.starts if start.attempt != final.attempt]
    return report_of(work.plan, final, state, evaluations(work.store, earlier, work.rows), found, work.checks)


def report_of(
    plan: RunPlan,
    final: FinalRecord,
    state: RunState,
    curve: Sequence[Row],
    found: Evaluation,
    checks: Mapping[str, Any],
) -> bytes:
    """report.json: the run in numbers."""
    content = {
        "run": str(plan.identity),
        "preset": plan.model.preset,
        "data": plan.data.to_dict(),
        "checks": checks,
        "training": {**plan.training.to_dict(), "epochs": final.epochs},
        "epochs": final.epochs,
        "stoppedEarly": final.stopped_early,
        "step": final.step,
        "metrics": final.metrics,
        "quality": quality(found),
        "best": final.best.to_dict() if final.best else None,
        "attempts": [
            {
                "attempt": start.attempt,
                "started": start.time,
                "ended": _ended(state, start.attempt, final),
            }
            for start in state.starts
        ],
        "rollbacks": [
            {"step": r.step, "toStep": r.to_step, "learningRateFactor": r.factor} for r in state.rollbacks
        ],
        "evaluations": [{k: row.get(k) for k in ("step", "epoch", *found.figures())} for row in curve],
        "export": final.export_prefix,
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _ended(state: RunState, attempt: int, final: FinalRecord) -> str:
    if attempt == final.attempt:
        return Reason.COMPLETED
    return state.ends[attempt].reason if attempt in state.ends else "Killed"


def show_final(board: Board, final: FinalRecord, steps: int) -> None:
    """A finished run on the board. `steps`: of all its epochs; 0 where that isn't known."""
    epoch = final.stopped_early or final.epochs
    progress = progress_of(epoch, final.epochs, final.step, steps, Stage.FINISHED, None)
    if not steps:
        progress = progress.model_copy(update={"percent": 100 * epoch // final.epochs})
    board.update(
        reached_training=True,
        metrics=metrics_of(board.metrics, final.metrics),
        progress=progress,
        model=ModelStatus(uri=f"{board.place}/export"),
    )
    board.enter(Stage.FINISHED)
