"""Snapshots on their way to S3: the newest, and the best if that is another one.

Used by the committer. An offered snapshot is written to the node's disk at once, on a thread of its own,
so that memory holds one for a moment only, however long S3 stays away. Where the disk is full it stays in
memory, and is tried again.
"""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rectrain_api.errors import DiskTooSmall, RectrainError
from rectrain_api.records import BestRecord, CheckpointRecord, StoredFile
from rectrain_data.transfer.files import local_error
from rectrain_trainer.snapshot import Snapshot, refuse_nan
from rectrain_trainer.snapshot_files import save_file, save_snapshot

CONFIG: Final = "config.yml"
FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 30.0


@dataclass(eq=False)
class Offer:
    """A snapshot on its way. What is done of it is kept, so that a retry goes on from there."""

    snapshot: Snapshot | None
    """None once it is on the disk."""
    epoch: int
    """Epochs begun, from 1."""
    accuracy: float | None = None
    best: bool = False
    step: int = field(init=False)
    """Completed optimizer steps."""
    folder: Path | None = None
    files: list[StoredFile] = field(default_factory=list)
    record: CheckpointRecord | None = None
    recorded: bool = False
    best_record: BestRecord | None = None
    best_recorded: bool = False

    @property
    def saved(self) -> bool:
        """Whether it is on the disk, whole."""
        return bool(self.files)

    def __post_init__(self) -> None:
        assert self.snapshot is not None
        self.step = self.snapshot.position.step

    def save(self, folder: Path, config: bytes) -> None:
        """Write and hash its files, and let go of the arrays. Raises Diverged, DiskTooSmall."""
        assert self.snapshot is not None
        refuse_nan(self.snapshot)
        try:
            files = save_snapshot(folder, self.snapshot)
            files.append(save_file(folder / CONFIG, lambda file: file.write(config)))
        except OSError as e:
            shutil.rmtree(folder, ignore_errors=True)
            raise local_error(e, folder) from e
        self.folder, self.snapshot = folder, None
        self.files = files  # last: from now on it may be taken

    def remove(self) -> None:
        """Its files aren't needed any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Waiting:
    """Thread-safe: offered by the train stage, taken by the committer's thread, saved by one of its own."""

    def __init__(self, folder: Path, config: bytes, trouble: Callable[[RectrainError], None]) -> None:
        """`trouble` is told of a full disk, from any thread."""
        self._folder = folder
        self._config = config
        self._trouble = trouble
        self._changed = threading.Condition()
        self._newest: Offer | None = None
        self._best: Offer | None = None
        self._taken: Offer | None = None
        self._closing = self._stopped = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="spooler", daemon=True)

    def start(self) -> None:
        """Remove first what a process that was killed here has left."""
        for left in self._folder.glob("step-*"):
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()

    def put(self, offer: Offer) -> None:
        """The newest one; the one that waited until now gives way, unless it is the best."""
        with self._changed:
            before = self._all()
            self._newest = offer
            if offer.best:
                self._best = offer
            self._let_go(before)

    def take(self) -> Offer | None:
        """The older one, as soon as it is saved; None when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._over() or any(o.saved for o in self._all()))
            if self._over():
                return None
            self._taken = min((o for o in self._all() if o.saved), key=lambda o: o.step)
            return self._taken

    def put_back(self) -> None:
        """What was taken isn't committed. It waits on, if nothing newer has come."""
        with self._changed:
            taken, self._taken = self._taken, None
            if taken is not None and taken not in self._all():
                taken.remove()

    def done(self) -> None:
        """What was taken is committed."""
        with self._changed:
            taken, self._taken = self._taken, None
            assert taken is not None
            self._newest = None if self._newest is taken else self._newest
            self._best = None if self._best is taken else self._best
            taken.remove()
            self._changed.notify_all()

    def close(self, wait_s: float) -> bool:
        """Nothing more comes. Wait until all is done, for at most `wait_s`; False if something was left."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._all() or self.error is not None, max(wait_s, 0.0))
            done = not self._all()
            self._stopped = True
            self._changed.notify_all()
        return done

    def join(self, wait_s: float) -> None:
        """Wait for the thread that saves; `close` comes first."""
        self._thread.join(wait_s)

    def fail(self, error: BaseException) -> None:
        """A thread died of this."""
        with self._changed:
            self.error = self.error or error
            self._stopped = True
            self._changed.notify_all()

    def pause(self, wait_s: float) -> None:
        """Until something may have changed for the better: not for long when time is running out."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._stopped or self._closing, timeout=wait_s):
                return
            self._changed.wait_for(lambda: self._stopped, timeout=min(wait_s, FIRST_WAIT_S))

    def _all(self) -> list[Offer]:
        """What waits, without repetition."""
        newest, best = self._newest, self._best
        return [o for o in (newest, best if best is not newest else None) if o is not None]

    def _over(self) -> bool:
        return self._stopped or (self._closing and not self._all())

    def _let_go(self, before: list[Offer]) -> None:
        for offer in before:
            if offer not in self._all() and offer is not self._taken:
                offer.remove()
        self._changed.notify_all()

    # -- the thread that saves

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        try:
            while (offer := self._unsaved()) is not None:
                try:
                    offer.save(self._folder / f"step-{offer.step:06d}", self._config)
                except DiskTooSmall as e:
                    self._trouble(e)
                    self.pause(wait_s)
                    wait_s = min(wait_s * 2, MAX_WAIT_S)
                else:
                    wait_s = FIRST_WAIT_S
                    self._saved(offer)
        except BaseException as e:
            self.fail(e)

    def _unsaved(self) -> Offer | None:
        with self._changed:
            self._changed.wait_for(lambda: self._over() or not all(o.saved for o in self._all()))
            unsaved = [] if self._stopped else [o for o in self._all() if not o.saved]
            return min(unsaved, key=lambda o: o.step) if unsaved else None

    def _saved(self, offer: Offer) -> None:
        with self._changed:
            if offer not in self._all() and offer is not self._taken:  # it may have been taken at once
                offer.remove()
            self._changed.notify_all()
