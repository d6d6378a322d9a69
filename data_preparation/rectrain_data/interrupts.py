"""Ctrl-C, SIGTERM and SIGHUP end a command in order: once. Called by the command line.

The first one raises KeyboardInterrupt. Whoever presses again at once doesn't cut short the cleaning up; who
presses again later is tired of waiting: a store that never answers holds a request for a minute. That is
seen by a thread of its own, because Python runs no handler while the main thread is inside a request.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Final

PATIENCE_S: Final = 2.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAID: Final = b"Stopped at once: a folder whose name ends in .part may be left; remove it.\n"


class Interrupts:
    """What was asked of this process; `status` is what to exit with."""

    def __init__(self) -> None:
        self.status = 128 + signal.SIGINT
        self.asked = False
        """For threads, which no exception reaches."""

    def install(self) -> None:
        """From now on; what the parent ignores (nohup) stays ignored."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(read,), daemon=True, name="interrupts").start()
        for signum in _SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self.status = True, 128 + signum
            raise KeyboardInterrupt


def _watch(fd: int) -> None:
    """Reads the number of each signal as it comes; ends the process as it is at a late one."""
    os.read(fd, 1)
    first = time.monotonic()
    while signum := os.read(fd, 1):
        if time.monotonic() - first > PATIENCE_S:
            os.write(2, _SAID)
            os._exit(128 + signum[0])
