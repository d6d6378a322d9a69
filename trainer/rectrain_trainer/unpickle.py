"""Pickles that hold arrays and Python's containers, read without running anything that is in them.

Called by `snapshot_files`, for checkpoints and for weights that somebody gives. A name is looked up in a
short list, or refused. NumPy's own constructors aren't in it: a dtype takes its state as a pickle gives it,
so one that says it holds objects (or no longer says so) makes NumPy follow the file's bytes as pointers. Ours
build plain numbers only.
"""

import codecs
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rectrain_api.errors import InvalidSpec

_NUMBERS: Final = "biufc"
"""Kinds of dtypes: truth values, integers, floating and complex numbers."""


def load(file: Any) -> Any:
    """What is in a pickle. Raises InvalidSpec for one that names anything else; other errors as they come."""
    return _plain(_ArraysOnly(file).load())


class _Kind:
    """Stands for a dtype while a file is read."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in _NUMBERS:
            raise InvalidSpec(f"is refused: it holds {self.dtype}. Weights are arrays of numbers.")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Of a dtype's state the byte order; the rest is for what isn't a number."""
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray[Any, Any]):
    """An array that is filled by its state."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, kind, fortran, data = state
        super().__setstate__((version, shape, kind.dtype, fortran, data))


def _kind(code: str, *_how: bool) -> _Kind:
    return _Kind(code)


def _reconstruct(*_empty: object) -> _Array:
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _from_buffer(data: Any, kind: _Kind, shape: Any, order: Any) -> Any:
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Kind, data: bytes) -> Any:
    [number] = np.frombuffer(data, kind.dtype)
    return number


def _plain(node: Any) -> Any:
    """Containers as they are, with NumPy's own arrays."""
    match node:
        case _Array():
            return node.view(np.ndarray)
        case dict():
            return {key: _plain(held) for key, held in node.items()}
        case list() | tuple():
            return type(node)(_plain(held) for held in node)
        case _Kind():
            raise InvalidSpec("is refused: it holds a dtype. Weights are arrays of numbers.")
    return node


class _ArraysOnly(pickle.Unpickler):
    """Finds what builds arrays, and nothing else."""

    _KNOWN: Final[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): object(),  # only ever handed to _reconstruct
        ("numpy", "dtype"): _kind,
        ("numpy.core.numeric", "_frombuffer"): _from_buffer,
        ("numpy._core.numeric", "_frombuffer"): _from_buffer,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("builtins", "tuple"): tuple,  # paddle.save writes a tensor as tuple((name, array))
        ("__builtin__", "tuple"): tuple,
        ("_codecs", "encode"): codecs.encode,  # bytes in protocol 2
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._KNOWN:
            raise InvalidSpec(
                f"is refused: it would run {module}.{name} when loaded. Weights hold arrays only; "
                "take them from a place that you trust."
            )
        found: Callable[..., Any] = self._KNOWN[module, name]
        return found
