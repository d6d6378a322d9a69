"""The flight recorder: one page of memory that the trainer writes and its supervisor reads.

However the trainer ends (a segmentation fault, the kernel's out-of-memory killer), what it last said is
still there for the termination message. A page in a memfd is written at once or not at all, takes no disk,
and nobody has to read while it is being written.
"""

import os
from typing import Final

from rectrain_api.report import TerminationResult, parse_termination_message

PAGE: Final = 4096
RUNNING: Final = "Running"
"""Reason of a result that isn't one yet."""


class FlightRecorder:
    """Both ends of it, by file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls) -> "FlightRecorder":
        """For the supervisor, which passes `fd` to the child."""
        fd = os.memfd_create("rectrain-flight")
        os.truncate(fd, PAGE)
        return cls(fd)

    def write(self, result: TerminationResult) -> None:
        """Replace what stands there."""
        os.pwrite(self.fd, result.to_termination_message().encode().ljust(PAGE, b"\0"), 0)

    def read(self) -> TerminationResult | None:
        """What was last written; None if nothing was."""
        return parse_termination_message(os.pread(self.fd, PAGE, 0).rstrip(b"\0").decode(errors="replace"))
