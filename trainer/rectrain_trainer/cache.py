"""Shards on a volume that runs share, by their content: `<cache>/sha256/<hash>`.

Called by the stage stage when the run has such a volume. A file gets its name when its sha256 was checked, so
what is there under the right name and of the right size is used as it is. Whoever fetches a shard holds its
lock (POSIX, so that it works over NFS and goes with its process); the others wait and find it there.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from rectrain_api.errors import DiskTooSmall
from rectrain_data.transfer import Download, Store
from rectrain_data.transfer.files import local_error
from rectrain_trainer.board import Board
from rectrain_trainer.disk import human

PARALLEL: Final = 32
AT_ONCE: Final = 64
"""Shards locked at a time: each lock is an open file, and others may go on with the rest."""
LOOK_AGAIN_S: Final = 0.5


class SharedCache:
    """A folder, and the locks in it."""

    def __init__(self, folder: Path, board: Board) -> None:
        self._folder = folder / "sha256"
        self._board = board

    def place(self, item: Download) -> Path:
        """Where a shard lies."""
        assert item.sha256 is not None
        return self._folder / item.sha256

    def missing(self, items: Sequence[Download]) -> list[Download]:
        """Those that aren't there, or not whole."""
        return [item for item in items if not self._holds(item)]

    def fetch(self, store: Store, items: Sequence[Download], progress: Callable[[int], None]) -> None:
        """Have them all, and link each to its path; those that another run is fetching are waited for.

        Raises DiskTooSmall, PermissionRefused, and what a download raises.
        """
        while missing := self.missing(items):
            with self._locked(missing[:AT_ONCE]) as held:
                mine = self.missing(held)  # somebody may have finished just before
                self._check_room(mine)
                there = [Download(d.key, self.place(d), d.size, d.sha256) for d in mine]
                store.download_all(there, limit=PARALLEL, progress=progress)
            if not held and self.missing(missing[:1]):
                self._board.say("staging data: another run is fetching the same; waiting for it")
                time.sleep(LOOK_AGAIN_S)
        for item in items:
            _link(item.path, self.place(item))

    def _holds(self, item: Download) -> bool:
        try:
            return self.place(item).stat().st_size == item.size
        except OSError:
            return False

    @contextlib.contextmanager
    def _locked(self, items: Sequence[Download]) -> Iterator[list[Download]]:
        """Hold the locks that nobody else holds; gives their shards."""
        with contextlib.ExitStack() as stack:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                yield [item for item in items if self._try_lock(item, stack)]
            except OSError as failed:
                raise local_error(failed, self._folder) from failed

    def _try_lock(self, item: Download, stack: contextlib.ExitStack) -> bool:
        path = self.place(item).with_suffix(".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either for "somebody holds it"
            os.close(descriptor)
            return False
        stack.callback(os.close, descriptor)  # which gives the lock back
        return True

    def _check_room(self, items: Sequence[Download]) -> None:
        needed = sum(item.size or 0 for item in items)
        stat = os.statvfs(self._folder)
        free = stat.f_bavail * stat.f_frsize
        if needed > free:
            raise DiskTooSmall(
                f"The data needs {needed} bytes ({human(needed)}) more and the volume of "
                f"data.cache.claimName has {free} bytes ({human(free)}) free: give it more room, or delete "
                "files of its sha256 folder that no run needs."
            )


def _link(path: Path, target: Path) -> None:
    """A symbolic link, also where an earlier pod left one."""
    if path.is_symlink() and path.readlink() == target:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    except OSError as failed:
        raise local_error(failed, path) from failed
