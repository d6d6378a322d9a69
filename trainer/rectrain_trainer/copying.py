"""Tensors copied out of the device, into memory that is used again.

Called by `snapshot.capture`, while training waits. On a CPU most of the time of a copy goes into fresh pages,
not into copying: with memory that has been used before it takes a quarter (measured for 300 MB).
"""

import math
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]
_LARGE: Final = 16 * 1024
"""Elements of a tensor that is worth a place in the memory."""
_ALIGNED: Final = 64


class Memory:
    """Blocks for copies. Each is free again when what it was lent for is forgotten."""

    def __init__(self) -> None:
        self._free: list[Array] = []

    def copy(self, tensors: Mapping[str, Any]) -> "Copies":
        """Arrays of their own, by the same names."""
        views = dict(_large_views(tensors))
        block = self._take(sum(_rounded(view.nbytes) for view in views.values()))
        copies, at = Copies(), 0
        for name, tensor in tensors.items():
            view = views.get(name)
            if view is None:
                copies[name] = tensor.numpy()  # on a CPU, too, this is a copy
                continue
            place = block[at : at + view.nbytes].view(view.dtype).reshape(view.shape)
            np.copyto(place, view)
            copies[name] = place
            at += _rounded(view.nbytes)
        if block.size:
            weakref.finalize(copies, self._free.append, block)
        return copies

    def _take(self, size: int) -> Array:
        for number, block in enumerate(self._free):
            if block.size == size:
                return self._free.pop(number)
        return np.empty(size, np.uint8)


class Copies(dict[str, Any]):
    """Arrays by name. While it is held, so is their memory: no array of it may outlive it."""


def _large_views(tensors: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    """The large ones of those that lie in this process's memory, as they are there."""
    import paddle

    known = (paddle.float32, paddle.float64, paddle.int64)
    for name, tensor in tensors.items():
        large = math.prod(tensor.shape) >= _LARGE  # Paddle's own size takes longer than most copies
        if large and tensor.dtype in known and tensor.place.is_cpu_place() and tensor.is_contiguous():
            yield name, np.from_dlpack(tensor.detach())


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
