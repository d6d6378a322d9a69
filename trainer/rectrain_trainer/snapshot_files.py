"""The files of a snapshot: model.pdparams and model.pdopt, as upstream names them and as `paddle.load`
reads them, state.json, and with an average of the weights model.pdema (model.pdparams is the average then).

Called by the committer (save) and by whoever resumes (load). The .pd files are pickles, so they could run
code when loaded. They are read by `unpickle`, which knows arrays and Python's containers and refuses
everything else.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeGuard

from rectrain_api.errors import DiskTooSmall, InvalidSpec
from rectrain_api.records import StoredFile
from rectrain_trainer import unpickle
from rectrain_trainer.snapshot import Snapshot

PARAMS: Final = "model.pdparams"
OPTIMIZER: Final = "model.pdopt"
EMA: Final = "model.pdema"
STATE: Final = "state.json"
_VERSION: Final = 2


class _Hashing:
    """A file that is hashed as it is written, so that it isn't read again for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        """`data` may be a pickle.PickleBuffer."""
        view = memoryview(data)
        self._hash.update(view)
        self._size += view.nbytes
        return self._file.write(view)

    def stored(self, name: str) -> StoredFile:
        return StoredFile(name=name, size=self._size, sha256=self._hash.hexdigest())


def save_file(path: Path, write: Callable[[_Hashing], object]) -> StoredFile:
    """Write one file by calling `write`."""
    with path.open("wb") as file:
        hashing = _Hashing(file)
        write(hashing)
    return hashing.stored(path.name)


def save_snapshot(folder: Path, snapshot: Snapshot) -> list[StoredFile]:
    """Write the files into `folder`. Needs no paddle: safe in any thread."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {PARAMS: snapshot.params, OPTIMIZER: snapshot.optimizer, EMA: snapshot.ema}
    written = {name: content for name, content in contents.items() if content is not None}
    files = [save_file(folder / name, partial(_dump, content)) for name, content in written.items()]
    state = {"version": _VERSION, **snapshot.plain()}
    text = json.dumps(state, indent=2) + "\n"
    return [*files, save_file(folder / STATE, lambda file: file.write(text.encode()))]


def _dump(content: Any, file: _Hashing) -> None:
    """Protocol 5 hands arrays over as they lie there; older ones copy each first."""
    pickle.dump(_plain(content), file, protocol=5)


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Dicts of Python's own, which any reader knows."""
    return {name: _plain(held) if isinstance(held, Mapping) else held for name, held in content.items()}


def load_snapshot(folder: Path) -> Snapshot:
    """Read what `save_snapshot` wrote.

    Raises:
        InvalidSpec: the files hold anything but a snapshot, or another version wrote them.
        DiskTooSmall: this node's disk can't be read, which says nothing about the checkpoint.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["version"] != _VERSION:
            raise InvalidSpec(
                f"The checkpoint was written by another version of RecTrain ({STATE} is of version "
                f"{state['version']}; this trainer reads {_VERSION}): train on with that version's image, "
                "or give this run a checkpoint.uri of its own."
            )
    except OSError as failed:
        raise _unreadable(folder / STATE, failed) from failed
    except (ValueError, KeyError, TypeError) as failed:
        raise _no_state(folder / STATE, failed) from failed
    params, optimizer = load_arrays(folder / PARAMS), load_arrays(folder / OPTIMIZER)
    ema: Any = load_arrays(folder / EMA) if (folder / EMA).exists() else None
    try:
        return Snapshot.of(state, params, optimizer, ema)
    except (KeyError, TypeError) as failed:
        raise _no_state(folder / STATE, failed) from failed


def _no_state(path: Path, failed: Exception) -> InvalidSpec:
    return InvalidSpec(f"{path} is no state of a run: {failed!r}.")


def load_arrays(path: Path) -> dict[str, Any]:
    """A .pdparams or .pdopt file as a dict of arrays, without running anything that is in it."""
    try:
        with path.open("rb") as file:
            content = unpickle.load(file)
    except InvalidSpec as refused:
        raise InvalidSpec(f"{path} {refused}") from None
    except OSError as failed:
        raise _unreadable(path, failed) from failed
    except Exception as failed:  # damaged bytes can ask for anything
        raise InvalidSpec(f"{path} can't be read as weights: {failed!r}.") from failed
    if not _is_named(content):
        raise InvalidSpec(f"{path} can't be read as weights: it holds a {type(content).__name__}.")
    return content


def _unreadable(path: Path, failed: OSError) -> DiskTooSmall:
    return DiskTooSmall(f"{path} can't be read ({failed.strerror}): check this node's disk.")


def _is_named(content: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and all(isinstance(key, str) for key in content)
