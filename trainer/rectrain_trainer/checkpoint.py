"""Commits checkpoints in the background: files first, then the record that makes them exist.

Called by the train stage, which offers snapshots and never waits. Only the newest snapshot waits (and the
best one, if that is another): while S3 is away training goes on, and status says since when nothing was
committed. From `start` to `finish` the thread here is the log's only writer.
"""

import logging
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rectrain_api.errors import InputMissing, InternalError, PermissionRefused, StoreUnavailable
from rectrain_api.records import (
    BestRecord,
    CheckpointRecord,
    RetireRecord,
    RunLog,
    StoredFile,
    checkpoint_prefix,
)
from rectrain_data.transfer import RetryEvent, Upload, sha256_file
from rectrain_data.transfer.files import local_error
from rectrain_trainer.board import Board
from rectrain_trainer.place import Place, leftovers, now
from rectrain_trainer.snapshot import Snapshot, save_snapshot

log = logging.getLogger(__name__)

CONFIG: Final = "config.yml"
AWAY: Final = (StoreUnavailable, PermissionRefused)
"""Errors that may pass: in mid-run, lost permission is one of them."""
_FIRST_WAIT_S: Final = 1.0
_MAX_WAIT_S: Final = 30.0


@dataclass
class Offer:
    """A snapshot on its way. What is done of it is kept, so that a retry goes on from there."""

    snapshot: Snapshot
    epoch: int
    """Epochs begun, from 1."""
    accuracy: float | None = None
    best: bool = False
    files: list[Path] = field(default_factory=list)
    record: CheckpointRecord | None = None
    recorded: bool = False
    best_record: BestRecord | None = None
    best_recorded: bool = False

    @property
    def step(self) -> int:
        """Completed optimizer steps."""
        return self.snapshot.position.step


class Committer:
    """`start`, `offer`…, `check` at every step, `finish`."""

    def __init__(
        self, run_log: RunLog, place: Place, board: Board, *, folder: Path, config: bytes, keep_last: int
    ) -> None:
        self._log = run_log
        self._place = place
        self._board = board
        self._folder = folder
        self._config = config
        self._keep_last = keep_last
        self._changed = threading.Condition()
        self._newest: Offer | None = None
        self._best: Offer | None = None
        self._closing = self._stopped = False
        self._error: BaseException | None = None
        self._committed_at = time.time()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Take over the log; tidy up after older attempts first."""
        self._show()
        self._thread.start()

    def offer(self, offer: Offer) -> None:
        """Take a snapshot; one that still waits gives way, unless it is the best."""
        with self._changed:
            self._newest = offer
            if offer.best:
                self._best = offer
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what the thread died of, such as Fenced."""
        if self._error is not None:
            raise self._error

    def finish(self, wait_s: float) -> bool:
        """Commit what waits, for at most `wait_s`, and hand the log back; False if something was left.

        Raises what the thread died of.
        """
        until = time.monotonic() + wait_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle() or self._error is not None, timeout=max(wait_s, 0.0))
            done = self._idle()
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(max(until - time.monotonic(), 1.0))
        self.check()
        return done

    @property
    def has_log(self) -> bool:
        """Whether the log is (still) the thread's."""
        return self._thread.is_alive()

    def waiting(self, event: RetryEvent) -> None:
        """For `Retries.on_retry`: a request failed, and is tried again."""
        since = time.strftime("%H:%M:%S UTC", time.gmtime(self._committed_at))
        self._board.say(f"Nothing has been committed since {since}: {event.sentence}", at_once=False)

    # -- the thread

    def _run(self) -> None:
        try:
            self._tidy()
            wait_s = _FIRST_WAIT_S
            while (offer := self._next()) is not None:
                try:
                    self._commit(offer)
                except AWAY as e:
                    self.waiting(RetryEvent(str(e), 1, 0.0, wait_s))
                    self._pause(wait_s)
                    wait_s = min(wait_s * 2, _MAX_WAIT_S)
                else:
                    wait_s = _FIRST_WAIT_S
        except BaseException as e:
            self._error = e
        finally:
            with self._changed:
                self._changed.notify_all()

    def _idle(self) -> bool:
        return self._newest is None and self._best is None

    def _next(self) -> Offer | None:
        """The offer to commit now, the older one first; None when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: not self._idle() or self._closing)
            offers = [o for o in (self._newest, self._best) if o is not None]
            return None if self._stopped or not offers else min(offers, key=lambda o: o.step)

    def _pause(self, wait_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, timeout=wait_s)

    def _commit(self, offer: Offer) -> None:
        offer.record = offer.record or self._upload(offer)
        if not offer.recorded:
            self._log.append(offer.record)
            offer.recorded = True
        if offer.best and not offer.best_recorded:
            offer.best_record = offer.best_record or self._best_of(offer, offer.record)
            self._log.append(offer.best_record)
            offer.best_recorded = True
        with self._changed:
            self._newest = None if self._newest is offer else self._newest
            self._best = None if self._best is offer else self._best
            self._changed.notify_all()
        self._committed_at = time.time()
        self._board.say("")
        self._show()
        log.info("Checkpoint of step %d committed (%s).", offer.step, _mib(offer.record.bytes))
        self._retire(self._log.state.to_retire(self._keep_last))

    def _upload(self, offer: Offer) -> CheckpointRecord:
        """All files at the checkpoint's own prefix, counted; the record isn't appended yet."""
        prefix = checkpoint_prefix(self._log.attempt, offer.step)
        offer.files = offer.files or self._save(offer)
        files = [StoredFile(name=p.name, size=p.stat().st_size, sha256=sha256_file(p)) for p in offer.files]
        known = self._known()
        uploads = [
            Upload(path, f"{prefix}/{file.name}", file.sha256)
            for path, file in zip(offer.files, files, strict=True)
            if not self._copied(known.get(file.sha256), f"{prefix}/{file.name}")
        ]
        self._place.upload_all(uploads, limit=4)
        self._count(prefix, files)
        shutil.rmtree(offer.files[0].parent, ignore_errors=True)
        return CheckpointRecord(
            attempt=self._log.attempt,
            time=now(),
            prefix=prefix,
            step=offer.step,
            epoch=offer.epoch,
            files=files,
            accuracy=offer.accuracy,
        )

    def _save(self, offer: Offer) -> list[Path]:
        folder = self._folder / f"step-{offer.step:06d}"
        try:
            files = [*save_snapshot(folder, offer.snapshot), folder / CONFIG]
            files[-1].write_bytes(self._config)
        except OSError as e:
            raise local_error(e, folder) from e
        return files

    def _known(self) -> dict[str, str]:
        """Keys of committed files by their hash."""
        return {f.sha256: f"{c.prefix}/{f.name}" for c in self._log.state.checkpoints for f in c.files}

    def _copied(self, source: str | None, target: str) -> bool:
        """Let the server copy a file that it has, instead of sending it again."""
        if source is None:
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

    def _best_of(self, offer: Offer, record: CheckpointRecord) -> BestRecord:
        if offer.accuracy is None:
            raise InternalError(f"The best checkpoint of step {offer.step} has no accuracy.")
        return BestRecord(
            attempt=self._log.attempt,
            time=now(),
            accuracy=offer.accuracy,
            step=offer.step,
            epoch=offer.epoch,
            prefix=record.prefix,
        )

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
