"""A wall clock that jumps: with this folder on PYTHONPATH, Python's clock is off by the seconds that the file
CHAOS_CLOCK holds. Only Python's: what Rust signs with is the machine's (the fault proxy refuses for that).
"""

import datetime
import os
import time

_FILE = os.environ["CHAOS_CLOCK"]
_real_time, _real_time_ns = time.time, time.time_ns
_real_datetime = datetime.datetime


def _offset_s() -> float:
    with open(_FILE) as file:  # noqa: PTH123 - pathlib isn't needed yet at this point of a start
        return float(file.read() or 0)


class _OfBothKinds(type(_real_datetime)):
    """What was made before still is a datetime."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_datetime)


class _Jumping(_real_datetime, metaclass=_OfBothKinds):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


_Jumping.__name__ = _Jumping.__qualname__ = "datetime"
_Jumping.__module__ = "datetime"
time.time = lambda: _real_time() + _offset_s()
time.time_ns = lambda: _real_time_ns() + int(_offset_s() * 1e9)
datetime.datetime = _Jumping
