"""What is known of this run right now: the one place that reports, result and terminal are made from.

Written by the stages and by the committer's thread, read by the reporter's. Every change also goes into
the flight recorder, so that a crash is told with the last state before it.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from rectrain_api.records import BestRecord, CheckpointRecord
from rectrain_api.report import ProgressReport, Stage, TerminationResult
from rectrain_api.status import (
    BestMetric,
    CheckpointRef,
    CheckpointStatus,
    DataStatus,
    Devices,
    Metrics,
    ModelStatus,
    Progress,
    StaleCheckpoint,
)
from rectrain_trainer.flight import RUNNING, FlightRecorder

MESSAGE_LIMIT: Final = 4000
Listener = Callable[[bool], None]


class Board:
    """Thread-safe. `listen` gets every change, and whether it is one worth telling at once."""

    def __init__(self, place: str, recorder: FlightRecorder | None = None) -> None:
        """`place` is the run's URI."""
        self.place = place
        self._recorder = recorder
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._sequence = 0
        self.attempt = 0
        self.stage = Stage.STAGING
        self.message = ""
        self.progress = Progress(stage=Stage.STAGING)
        self.metrics: Metrics | None = None
        self.data: DataStatus | None = None
        self.devices: Devices | None = None
        self.checkpoint: CheckpointStatus | None = None
        self.model: ModelStatus | None = None
        self.report_uri: str | None = None
        self.reached_training = False
        self.ended = False
        self._beat_step = 0

    def listen(self, listener: Listener) -> None:
        """Be told of changes, from any thread; must not block."""
        self._listeners.append(listener)

    def enter(self, stage: Stage, message: str = "") -> None:
        """A stage begins."""
        if stage in (Stage.EXPORTING, Stage.FINISHED):
            self.rest()
        with self._lock:
            self.stage = stage
            self.message = message
            self.progress = self.progress.model_copy(update={"stage": stage.value})
        self._changed(at_once=True)

    def beat(self, step: int | None = None) -> None:
        """A sign of life: a training step, or a batch of an evaluation. From the first one on the supervisor
        waits for the next, but for export, whose parts take as long as they take.
        """
        self._beat_step = self._beat_step if step is None else step
        if self._recorder and self.stage in (Stage.TRAINING, Stage.EVALUATING):
            self._recorder.beat(self._beat_step)

    def rest(self) -> None:
        """What follows has bounds of its own: nobody waits for a sign of life until the next one."""
        if self._recorder:
            self._recorder.rest()

    def say(self, message: str, *, at_once: bool = True) -> None:
        """A sentence worth showing; "" takes it back."""
        with self._lock:
            if message == self.message:
                return
            self.message = message[:MESSAGE_LIMIT]
        self._changed(at_once=at_once)

    def update(self, **fields: Any) -> None:
        """Set attempt, progress, metrics, data, devices, model, report_uri or reached_training."""
        with self._lock:
            before = self.progress.percent
            for name, value in fields.items():
                setattr(self, name, value)
            at_once = self.progress.percent != before
        self._changed(at_once=at_once)

    def committed(
        self, latest: CheckpointRecord | None, best: tuple[BestRecord, CheckpointRecord] | None
    ) -> None:
        """What the log holds now."""
        with self._lock:
            self.checkpoint = CheckpointStatus(
                latest=self._ref(latest) if latest else None, best=self._ref(best[1]) if best else None
            )
            if best:
                metric = BestMetric(accuracy=best[0].accuracy, epoch=best[0].epoch, step=best[0].step)
                self.metrics = (self.metrics or Metrics()).model_copy(update={"best": metric})
        self._changed(at_once=True)

    def stale(self, since: str, reason: str) -> None:
        """Nothing was committed since then, though a snapshot waits; the next commit takes it back."""
        with self._lock:
            known = self.checkpoint or CheckpointStatus()
            if known.stale is not None and known.stale.reason == reason:
                return
            stale = StaleCheckpoint(since=since, reason=reason)
            self.checkpoint = known.model_copy(update={"stale": stale})
        self._changed(at_once=True)

    def report(self) -> ProgressReport:
        """The next report. Sequences grow over the pods of a run too: they are at least the time [s]."""
        with self._lock:
            self._sequence = max(self._sequence + 1, int(time.time()))
            return ProgressReport(
                attempt=self.attempt,
                sequence=self._sequence,
                stage=self.stage,
                message=self.message,
                progress=self.progress,
                metrics=self.metrics,
                data=self.data,
                devices=self.devices,
                checkpoint=self.checkpoint,
                model=self.model,
                report=self.report_uri,
            )

    def result(self, exit_code: int, reason: str, message: str) -> TerminationResult:
        """How it ended, or with the reason RUNNING: how it stands."""
        with self._lock:
            return TerminationResult(
                exit_code=exit_code,
                reason=reason,
                message=message[:MESSAGE_LIMIT],
                attempt=self.attempt,
                reached_training=self.reached_training,
                progress=self.progress,
                metrics=self.metrics,
                checkpoint=self.checkpoint,
                model=self.model,
                report=self.report_uri,
            )

    def end(self, exit_code: int, reason: str, message: str) -> None:
        """The last word: nothing that still changes replaces it in the flight recorder."""
        with self._lock:
            self.message = message[:MESSAGE_LIMIT]
            if self._recorder:
                self._recorder.write(self.result(exit_code, reason, message))
            self.ended = True
        self._changed(at_once=True)

    def _ref(self, record: CheckpointRecord) -> CheckpointRef:
        return CheckpointRef(
            uri=f"{self.place}/{record.prefix}",
            step=record.step,
            epoch=record.epoch,
            time=record.time,
            bytes=record.bytes,
        )

    def _changed(self, *, at_once: bool) -> None:
        with self._lock:
            if self._recorder and not self.ended:
                self._recorder.write(self.result(255, RUNNING, self.message))
        for listener in self._listeners:
            listener(at_once)
