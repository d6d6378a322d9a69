"""Where every thread stands, in the process that trains, when its supervisor asks for it.

Called by the child. Asked twice, since a process that hangs may not be able to do everything:

- `DUMP`: written to stderr by the signal itself, whatever the process does (Paddle is C++);
- `TELL`: written to the run's log in S3 by a thread that waits for it, if Python still runs.
"""

import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Final

from rectrain_trainer.chunks import Chunks

DUMP: Final = signal.SIGUSR2
TELL: Final = signal.SIGUSR1
"""Blocked by the supervisor, and so in every thread here: it waits to be asked for."""


def offer_stacks(chunks: Chunks) -> None:
    """From now on both signals are answered."""
    faulthandler.register(DUMP, file=sys.stderr, all_threads=True)
    threading.Thread(target=_tell, args=(chunks,), name="stacks", daemon=True).start()


def _tell(chunks: Chunks) -> None:
    while True:
        signal.sigwait({TELL})
        for line in stacks():
            chunks.line(line)
        chunks.flush()


def stacks() -> Iterator[str]:
    """The stack of every thread, a line at a time."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"Thread {names.get(ident, ident)}, most recent call last:"
        for part in traceback.format_stack(frame):
            yield from part.rstrip().splitlines()
