"""Where every thread stands, in the process that trains, when its supervisor asks for it.

Called by the child. Asked twice, since a process that hangs may not be able to do everything:

- `DUMP`: written to stderr by the signal itself, whatever the process does (Paddle is C++);
- `TELL`: written to the run's log in S3 by a thread that waits for it, if Python still runs. Rank 0 alone
  writes there; the other ranks of its pod, asked before it, leave theirs in a folder for it.
"""

import faulthandler
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from rectrain_trainer.chunks import Chunks

DUMP: Final = signal.SIGUSR2
TELL: Final = signal.SIGUSR1
"""Blocked by the supervisor, and so in every thread here: it waits to be asked for."""
WAIT_S: Final = 2.0
"""For the other ranks of the pod; the supervisor ends all of them soon."""


def offer_stacks(chunks: Chunks, folder: Path, rank: int, in_pod: int) -> None:
    """From now on both signals are answered. `folder` is of this pod, which has `in_pod` ranks."""
    faulthandler.register(DUMP, file=sys.stderr, all_threads=True)
    if rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
    thread = threading.Thread(target=_tell, args=(chunks, folder, rank, in_pod), name="stacks", daemon=True)
    thread.start()


def _tell(chunks: Chunks, folder: Path, rank: int, in_pod: int) -> None:
    while True:
        signal.sigwait({TELL})
        if rank:
            leave(folder, rank)
            continue
        for line in stacks():
            chunks.line(line)
        chunks.flush()
        for line in left_by(folder, range(1, in_pod)):
            chunks.line(line)
        chunks.flush()


def leave(folder: Path, rank: int) -> None:
    """This process's stacks, for rank 0 to find."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / f"{rank}.part"
    begun.write_text("\n".join(stacks()), encoding="utf-8")
    begun.replace(folder / f"{rank}.txt")


def left_by(folder: Path, others: Iterable[int], wait_s: float = WAIT_S) -> Iterator[str]:
    """What they left, a line at a time; who leaves nothing in time hangs outside of Python."""
    until = time.monotonic() + wait_s
    for rank in others:
        found = folder / f"{rank}.txt"
        while not found.exists() and time.monotonic() < until:
            time.sleep(0.05)
        if not found.exists():
            yield f"Rank {rank} doesn't say where it stands: see the pod's own log."
            continue
        yield f"Rank {rank}:"
        yield from found.read_text(encoding="utf-8").splitlines()
        found.unlink()


def stacks() -> Iterator[str]:
    """The stack of every thread, a line at a time."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"Thread {names.get(ident, ident)}, most recent call last:"
        for part in traceback.format_stack(frame):
            yield from part.rstrip().splitlines()
