"""Commits checkpoints in the background: files first, then the record that makes them exist.

Called by the train stage, which offers snapshots and never waits. Only the newest snapshot waits (and the
best one, if that is another; see `offers`): while S3 is away training goes on, and status says since when
nothing was committed. From `start` to `finish` the thread here is the log's only writer.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rectrain_api.errors import (
    InputMissing,
    InternalError,
    PermissionRefused,
    RectrainError,
    StoreUnavailable,
)
from rectrain_api.exit_codes import outcome_of
from rectrain_api.records import (
    BestRecord,
    CheckpointRecord,
    PlanChange,
    RetireRecord,
    StoredFile,
    checkpoint_prefix,
)
from rectrain_api.run_log import RunLog
from rectrain_api.status import nothing_since
from rectrain_data.transfer import RetryEvent, Upload
from rectrain_trainer import offers
from rectrain_trainer.board import Board
from rectrain_trainer.offers import Offer, Waiting
from rectrain_trainer.place import Place, leftovers, now

log = logging.getLogger(__name__)

AWAY: Final = (StoreUnavailable, PermissionRefused)
"""Errors that may pass: in mid-run, lost permission is one of them."""
STALE_AFTER_S: Final = 10.0
"""A request that is tried again for so long is worth a condition."""


class Committer:
    """`start`, `offer`…, `check` at every step, `finish`."""

    def __init__(
        self,
        run_log: RunLog,
        place: Place,
        board: Board,
        store_metrics: Callable[[], None],
        *,
        folder: Path,
        config: bytes,
        keep_last: int,
    ) -> None:
        """`store_metrics` comes before every record, so that no committed step lacks its metrics.

        It raises what a store raises.
        """
        self._log = run_log
        self._place = place
        self._board = board
        self._store_metrics = store_metrics
        self._keep_last = keep_last
        self._waiting = Waiting(folder, config, self._stale)
        self._changes: deque[PlanChange] = deque()
        self._committed_at = now()
        self._trouble: RectrainError | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Take over the log; tidy up after older attempts first."""
        self._show()
        self._waiting.start()
        self._thread.start()

    def offer(self, offer: Offer) -> None:
        """Take a snapshot; one that still waits gives way, unless it is the best."""
        self._waiting.put(offer)

    def change(self, epochs: int, was: int, step: int) -> None:
        """The run has more epochs from this step on: recorded before the first checkpoint that has them."""
        self._changes.append(
            PlanChange(attempt=self._log.attempt, time=now(), was=was, epochs=epochs, step=step)
        )

    def check(self) -> None:
        """Raise what a thread died of, such as Fenced."""
        if self._waiting.error is not None:
            raise self._waiting.error

    def finish(self, wait_s: float) -> RectrainError | None:
        """Commit what waits, for at most `wait_s`, and hand the log back; why something was left, if it was.

        Raises what a thread died of.
        """
        until = time.monotonic() + wait_s
        done = self._waiting.close(wait_s)
        self._thread.join(max(until - time.monotonic(), 1.0))
        self.check()
        return None if done else self._trouble or StoreUnavailable("There wasn't time enough.")

    def leave(self, wait_s: float) -> None:
        """After `finish`, which may have left something: wait for the threads, so that others can take over.

        Raises StoreUnavailable when the log isn't handed back in time.
        """
        self._waiting.join(wait_s)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            raise StoreUnavailable(str(self._trouble or "A request to S3 isn't answered."))

    @property
    def has_log(self) -> bool:
        """Whether the log is (still) the thread's."""
        return self._thread.is_alive()

    def retried(self, event: RetryEvent) -> None:
        """For `Retries.on_retry`: a request failed, and is tried again."""
        self._say(event.sentence)
        if event.waited_s >= STALE_AFTER_S:
            self._board.stale(self._committed_at, outcome_of(StoreUnavailable()).reason)

    def _stale(self, error: RectrainError) -> None:
        """A commit failed, and is tried again."""
        self._trouble = error
        self._say(str(error))
        self._board.stale(self._committed_at, outcome_of(error).reason)

    def _say(self, sentence: str) -> None:
        self._board.say(nothing_since(self._committed_at, sentence), at_once=False)

    # -- the thread

    def _run(self) -> None:
        try:
            self._tidy()
            wait_s = offers.FIRST_WAIT_S
            while (offer := self._waiting.take()) is not None:
                try:
                    self._commit(offer)
                except AWAY as e:
                    self._waiting.put_back()
                    self._stale(e)
                    self._waiting.pause(wait_s)
                    wait_s = min(wait_s * 2, offers.MAX_WAIT_S)
                else:
                    self._waiting.done()  # before what nobody needs to wait for
                    wait_s = offers.FIRST_WAIT_S
                    self._retire(self._log.state.to_retire(self._keep_last))
        except BaseException as e:
            self._waiting.fail(e)

    def _commit(self, offer: Offer) -> None:
        offer.record = offer.record or self._upload(offer)
        if not offer.recorded:
            self._store_metrics()
            self._append_changes(offer.step)
            self._log.append(offer.record)
            offer.recorded = True
        if offer.best and not offer.best_recorded:
            offer.best_record = offer.best_record or self._best_of(offer.record)
            self._log.append(offer.best_record)
            offer.best_recorded = True
        self._committed_at = now()
        self._trouble = None
        self._board.say("")
        self._show()
        log.info("Checkpoint of step %d committed (%s).", offer.step, _mib(offer.record.bytes))

    def _append_changes(self, step: int) -> None:
        """Those that a checkpoint of this step has. An older one goes on by the epochs of before."""
        while self._changes and self._changes[0].step <= step:
            self._log.append(self._changes[0])
            self._changes.popleft()

    def _upload(self, offer: Offer) -> CheckpointRecord:
        """All files at the checkpoint's own prefix, counted; the record isn't appended yet."""
        assert offer.folder is not None
        rollbacks = sum(r.attempt == self._log.attempt for r in self._log.state.rollbacks)
        prefix = checkpoint_prefix(self._log.attempt, offer.step, rollbacks)
        known = self._known()
        uploads = [
            Upload(offer.folder / file.name, f"{prefix}/{file.name}", file.sha256)
            for file in offer.files
            if not self._copied(file, known.get(file.sha256), f"{prefix}/{file.name}")
        ]
        self._place.upload_all(uploads, limit=4)
        self._count(prefix, offer.files)
        return CheckpointRecord(
            attempt=self._log.attempt,
            time=now(),
            prefix=prefix,
            step=offer.step,
            epoch=offer.epoch,
            files=offer.files,
            accuracy=offer.accuracy,
        )

    def _known(self) -> dict[str, str]:
        """Keys of committed files by their hash."""
        return {f.sha256: f"{c.prefix}/{f.name}" for c in self._log.state.checkpoints for f in c.files}

    def _copied(self, file: StoredFile, source: str | None, target: str) -> bool:
        """Let the server copy a file that it has, instead of sending it again; unless somebody changed it."""
        there = self._place.head(source) if source else None
        if source is None or there is None or (there.size, there.sha256) != (file.size, file.sha256):
            return False
        try:
            self._place.copy(source, target)
        except InputMissing:
            return False
        return True

    def _count(self, prefix: str, files: Sequence[StoredFile]) -> None:
        there = {o.key: o.size for o in self._place.list_objects(f"{prefix}/")}
        for file in files:
            size = there.get(f"{prefix}/{file.name}")
            if size != file.size:
                raise StoreUnavailable(
                    f"{self._place.uri_of(f'{prefix}/{file.name}')} was uploaded with {file.size} bytes and "
                    f"is listed with {size}: the store isn't consistent."
                )

    def _best_of(self, record: CheckpointRecord) -> BestRecord:
        if record.accuracy is None:
            raise InternalError(f"The best checkpoint of step {record.step} has no accuracy.")
        return BestRecord.of(record, record.accuracy, attempt=self._log.attempt, time=now())

    def _retire(self, prefixes: list[str]) -> None:
        """Record, then delete. What can't be deleted now is an older attempt's leftover later."""
        if not prefixes:
            return
        try:
            self._log.append(RetireRecord(attempt=self._log.attempt, time=now(), prefixes=prefixes))
            for prefix in prefixes:
                self._place.delete([o.key for o in self._place.list_objects(f"{prefix}/")])
        except AWAY as e:
            log.warning("Retired checkpoints couldn't be deleted yet (%s).", e)

    def _tidy(self) -> None:
        try:
            keys = (o.key for o in self._place.list_objects("attempts/"))
            gone = leftovers(keys, self._log.state, self._log.attempt)
            if gone:
                self._place.delete(gone)
                log.info("Deleted %d file(s) of checkpoints that were never committed.", len(gone))
        except AWAY as e:
            log.warning("Older attempts' leftovers couldn't be deleted yet (%s).", e)

    def _show(self) -> None:
        state = self._log.state
        newest = state.newest_first()
        best = state.checkpoint_at(state.best.prefix) if state.best else None
        self._board.committed(
            newest[0] if newest else None, (state.best, best) if state.best and best else None
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
