"""The flight recorder: two pages of memory that the trainer writes and its supervisor reads.

However the trainer ends (a segmentation fault, the kernel's out-of-memory killer), what it last said is
still there for the termination message. A page in a memfd is written at once or not at all, takes no disk,
and nobody has to read while it is being written. The second page is the pulse: a count of steps and
evaluation batches, from which the supervisor sees that the trainer hangs.
"""

import os
import struct
from typing import Final, NamedTuple

from rectrain_api.report import TerminationResult, parse_termination_message

PAGE: Final = 4096
RUNNING: Final = "Running"
"""Reason of a result that isn't one yet."""


_PULSE: Final = struct.Struct("<qq")


class Pulse(NamedTuple):
    """The trainer's signs of life."""

    beats: int = 0
    """So many; 0 while none is to be waited for."""
    step: int = 0
    """Completed optimizer steps at the last one."""


class FlightRecorder:
    """Both ends of it, by file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._beats = 0

    @classmethod
    def new(cls) -> "FlightRecorder":
        """For the supervisor, which passes `fd` to the child."""
        fd = os.memfd_create("rectrain-flight")
        os.truncate(fd, 2 * PAGE)
        return cls(fd)

    def write(self, result: TerminationResult) -> None:
        """Replace what stands there."""
        os.pwrite(self.fd, result.to_termination_message().encode().ljust(PAGE, b"\0"), 0)

    def beat(self, step: int) -> None:
        """One more sign of life. Costs a system call, and needs no lock."""
        self._beats += 1
        os.pwrite(self.fd, _PULSE.pack(self._beats, step), PAGE)

    def rest(self) -> None:
        """Don't wait for signs of life until the next one."""
        os.pwrite(self.fd, _PULSE.pack(0, 0), PAGE)

    def pulse(self) -> Pulse:
        """As it stands."""
        return Pulse(*_PULSE.unpack(os.pread(self.fd, _PULSE.size, PAGE)))

    def read(self) -> TerminationResult | None:
        """What was last written; None if nothing was."""
        return parse_termination_message(os.pread(self.fd, PAGE, 0).rstrip(b"\0").decode(errors="replace"))
