"""A process that ends when the one that started it does. Called first thing by those that nobody else would
miss: the one that trains, and the ones that it tries things in.
"""

import ctypes
import os
import signal
from typing import Final

from rectrain_api.exit_codes import EX_SOFTWARE

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """When `parent` is killed, so are we: nobody would see how we end."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EX_SOFTWARE)
