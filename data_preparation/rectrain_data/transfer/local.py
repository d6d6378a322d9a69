"""A folder of this machine as a store, with S3's promises: a file is there whole or not at all, a create has
one winner, lists are in order. For runs without S3.

obstore writes beside the target and renames, or links where a key must be new. What a folder doesn't have is
made up for here: attributes (the hash is taken of the file), order, deletes of what isn't there. Folders that
become empty stay.
"""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import obstore
from obstore.store import LocalStore

from rectrain_api.errors import InputMissing, InvalidSpec, PermissionRefused, StoreUnavailable
from rectrain_data.transfer.errors import Failure
from rectrain_data.transfer.files import Corrupt, sha256_file
from rectrain_data.transfer.retries import Retries
from rectrain_data.transfer.store import ObjectInfo, Store

_SCHEME: Final = "file://"
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_SUCH: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


def is_local(uri: str) -> bool:
    """Whether a URI names a place on this machine."""
    return uri.startswith(_SCHEME)


def local_uri(path: Path) -> str:
    """The URI of a file or folder, as it is written: nothing in it is escaped."""
    return f"{_SCHEME}{path.absolute()}"


def local_path(uri: str) -> Path:
    """The file or folder of a URI. Raises InvalidSpec."""
    path = Path(uri.removeprefix(_SCHEME))
    if not is_local(uri) or not path.is_absolute():
        raise InvalidSpec(f"{uri!r} isn't the URI of a local folder: write it like file:///home/me/run.")
    return Path(os.path.normpath(path))


def open_folder(uri: str, retries: Retries) -> Store:
    """The store of `file:///folder`, which is made when something is written. Raises InvalidSpec."""
    return FolderStore(LocalStore(), _SCHEME, str(local_path(uri)).strip("/"), None, retries)


class FolderStore(Store):
    """A folder. Thread-safe, and safe against other processes."""

    def head(self, key: str) -> ObjectInfo | None:
        """Size and hash of a file, or None when it isn't there."""

        def request() -> ObjectInfo:
            meta = obstore.head(self._inner, self._path(key))
            try:
                sha256 = sha256_file(Path("/", self._path(key)))
            except InputMissing as exc:  # deleted since
                raise FileNotFoundError(key) from exc
            return ObjectInfo(key, meta["size"], meta["e_tag"], sha256)

        return self._found(key, request)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files; those that aren't there are no error."""
        for key in keys:

            def request(key: str = key) -> bool:
                obstore.delete(self._inner, self._path(key))
                return True

            self._found(key, request)

    def copy(self, source: str, target: str) -> None:
        """Copy a file, by a link. Once: to rename a link over its like does nothing, and leaves both."""
        here, there = (Path("/", self._path(key)) for key in (source, target))
        try:
            linked = here.samefile(there)
        except OSError:
            linked = False
        if not linked:
            super().copy(source, target)

    def _list_page(self, prefix: str, after: str | None) -> list[ObjectInfo]:
        """All there is: a folder is listed in no order, so no part of it is a page."""
        stream = obstore.list(self._inner, f"{self._prefix}{prefix}" or None)
        found = (
            ObjectInfo(o["path"].removeprefix(self._prefix), o["size"], o["e_tag"])
            for page in stream
            for o in page
        )
        return sorted((one for one in found if after is None or one.key > after), key=lambda one: one.key)

    def _named(self) -> str:
        return f"The file system of {self.uri}"

    def _put(self, key: str, source: bytes | Path, attributes: dict[str, str] | None) -> str | None:  # noqa: ARG002
        return super()._put(key, source, None)

    def _understand(self, exc: BaseException, uri: str, doing: str = "reading") -> Failure:  # noqa: ARG002
        return classify(exc, uri)


def classify(exc: BaseException, uri: str) -> Failure:
    """What a failed request on a local `uri` means. `exc` is anything that obstore raises."""
    said = str(exc)
    match = _OS_ERROR.search(said)
    number = int(match.group(1)) if match else 0
    why = os.strerror(number) if number else said.partition("\n")[0]
    if isinstance(exc, FileNotFoundError) or number in _NO_SUCH:
        gone = f"{uri} isn't there ({why}): put it back, or correct the path."
        return Failure(InputMissing(gone), transient=False, missing_object=True)
    if isinstance(exc, PermissionError) or number in _REFUSED:
        refused = (
            f"{uri} may not be accessed by this user ({why}): change its permissions, or choose another."
        )
        return Failure(PermissionRefused(refused), transient=False)
    if isinstance(exc, obstore.exceptions.PreconditionError):
        return Failure(Corrupt(f"{uri} was changed while it was read: read it again."), transient=False)
    if "range was invalid" in said:
        return Failure(Corrupt(f"{uri} is shorter than expected: write it again."), transient=False)
    if isinstance(exc, ValueError):
        return Failure(InvalidSpec(f"{uri} isn't a usable place ({why}): choose another."), transient=False)
    away = f"{uri} can't be read or written ({why}): check the disk and its free space."
    return Failure(StoreUnavailable(away), transient=True)
