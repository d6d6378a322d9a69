"""Everything of ours that touches S3, over obstore. Synchronous; threads inside where many requests help.
A folder of this machine serves as well (`transfer.local`): a run on a laptop keeps its place there.

Called by the trainer (staging, checkpoints, the run's log: `Store` is a `rectrain_api.run_log.LogStore`)
and by `rectrain-data upload|ls`. Keys are relative to the store's own prefix. Every request is retried
within `Retries`; every error is one of `rectrain_api.errors` and names the URI. Uploads carry a SHA-256
that the service checks, and keep the file's own in the metadata. A store doesn't survive a fork.
"""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
import obstore.exceptions
from obstore.store import LocalStore, S3Store

from rectrain_api.errors import InvalidSpec
from rectrain_data.transfer import errors
from rectrain_data.transfer.bulk import for_each
from rectrain_data.transfer.downloads import PART_BYTES, Downloads, Progress
from rectrain_data.transfer.files import Corrupt, Download, Upload, file_size, sha256_bytes, sha256_file
from rectrain_data.transfer.options import S3Options
from rectrain_data.transfer.retries import Retries

if TYPE_CHECKING:
    from obstore import GetOptions

T = TypeVar("T")
DEFAULT_LIMIT = 16
_PROBE_RACERS = 16
_LIST_PAGE = 1000
_SHA256_KEY = "sha256"
WRITING = "writing"
"""Said of a request that was refused: a place may be readable, and that alone."""
# A blip inside one part of a large upload is retried there rather than sending the whole file again.
_INNER_RETRIES = 2


@dataclass(frozen=True)
class ObjectInfo:
    """An object that is there. sha256 is known for objects that we uploaded, from `head` only."""

    key: str
    size: int
    e_tag: str | None
    sha256: str | None = None


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI. Raises InvalidSpec."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise InvalidSpec(f"{uri!r} isn't an S3 URI: write it like s3://bucket/folder.")
    return bucket, key.strip("/")


def open_bucket(uri: str, options: S3Options, retries: Retries) -> "Store":
    """The store of `s3://bucket/prefix`. Sends no request yet.

    Raises:
        InvalidSpec: the URI or an option can't work.
        PermissionRefused: there are no keys.
    """
    bucket, prefix = split_uri(uri)
    inner = S3Store(
        bucket,
        config=options.config(bucket),
        client_options=options.client_config(),
        retry_config={
            "max_retries": _INNER_RETRIES,
            "retry_timeout": timedelta(seconds=10),
            "backoff": {"max_backoff": timedelta(seconds=1)},
        },
        credential_provider=options.credential_provider(),
    )
    return Store(inner, f"s3://{bucket}", prefix, options.endpoint, retries)


class Store:
    """A prefix of a bucket. Thread-safe."""

    def __init__(
        self, inner: S3Store | LocalStore, root: str, prefix: str, endpoint: str | None, retries: Retries
    ) -> None:
        """`root`: the URI that keys begin at, without a slash at the end."""
        self._inner = inner
        self._root = root
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self.retries = retries

    @property
    def uri(self) -> str:
        """The store's own place, without a slash at the end."""
        return f"{self._root}/{self._prefix}".rstrip("/")

    def uri_of(self, key: str) -> str:
        """The whole URI of a key."""
        return f"{self._root}/{self._prefix}{key}"

    def at(self, prefix: str) -> "Store":
        """The same store, deeper."""
        deeper = f"{self._prefix}{prefix.strip('/')}"
        return type(self)(self._inner, self._root, deeper.rstrip("/"), self._endpoint, self.retries)

    # -- one object

    def get(self, key: str) -> bytes | None:
        """The object, or None when it isn't there. A missing bucket is still an error."""
        return self._found(key, lambda: obstore.get(self._inner, self._path(key)).bytes().to_bytes())

    def get_bytes(self, key: str) -> bytes:
        """The object. Raises InputMissing."""
        return self._present(key, self.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`. Raises InputMissing, Corrupt when the object is shorter."""
        if length == 0:
            return b""

        def request() -> bytes:
            return obstore.get_range(self._inner, self._path(key), start=start, length=length).to_bytes()

        data = self._run(key, request)
        if len(data) != length:
            raise Corrupt(f"{self.uri_of(key)} ends before byte {start + length}: upload it again.")
        return data

    def head(self, key: str) -> ObjectInfo | None:
        """Size and hash of an object, or None when it isn't there."""

        def request() -> ObjectInfo:
            found = obstore.get(self._inner, self._path(key), options={"head": True})
            sha256 = found.attributes.get(_SHA256_KEY)
            return ObjectInfo(key, found.meta["size"], found.meta["e_tag"], sha256)

        return self._found(key, request)

    def put_bytes(self, key: str, data: bytes, content_type: str | None = None) -> None:
        """Write an object, whole or not at all. A browser shows it by its content type."""
        attributes = {_SHA256_KEY: sha256_bytes(data)} | (
            {"Content-Type": content_type} if content_type else {}
        )
        self._run(key, lambda: self._put(key, data, attributes), WRITING)

    def put_file(self, key: str, path: Path, sha256: str | None = None) -> ObjectInfo:
        """Send a file. A sha256 that is given is trusted."""
        digest = sha256 or sha256_file(path)
        size = file_size(path)

        def request() -> str | None:
            attributes = {_SHA256_KEY: digest}
            if size <= PART_BYTES:
                return self._put(key, path.read_bytes(), attributes)
            return self._put(key, path, attributes)

        return ObjectInfo(key, size, self._run(key, request, WRITING), digest)

    def create(self, key: str, data: bytes) -> bool:
        """Create-only put (`If-None-Match: *`). False: the key is there, perhaps by an answer that got lost
        on its way to us; who needs to know reads it back and compares a nonce."""

        def request() -> bool:
            try:
                obstore.put(self._inner, self._path(key), data, mode="create")
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return False
            return True

        return self._run(key, request, WRITING)

    def copy(self, source: str, target: str) -> None:
        """Copy inside the store, by the server. Raises InputMissing."""
        writing = f"{WRITING} {self.uri_of(target)} as a copy of"
        self._run(source, lambda: obstore.copy(self._inner, self._path(source), self._path(target)), writing)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that aren't there are no error."""
        for start in range(0, len(keys), _LIST_PAGE):
            paths = [self._path(key) for key in keys[start : start + _LIST_PAGE]]
            self._run(keys[start], partial(obstore.delete, self._inner, paths), "deleting")

    # -- listing

    def list_objects(self, prefix: str = "", after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects under a prefix (whole folders), in key order; those after a key if one is given."""
        while True:
            page = self._run(prefix, partial(self._list_page, prefix, after), "listing")
            yield from page
            if len(page) < _LIST_PAGE:
                return
            after = page[-1].key

    def list_keys(self, prefix: str, after: str = "") -> Sequence[str]:
        """All keys under a prefix, in order; those after `after` if it is given."""
        return [info.key for info in self.list_objects(prefix, after or None)]

    def _list_page(self, prefix: str, after: str | None) -> list[ObjectInfo]:
        """One request's worth, so that a failure in the middle of a long list repeats one page only."""
        full = f"{self._prefix}{prefix}"
        offset = f"{self._prefix}{after}" if after is not None else None
        stream = obstore.list(self._inner, full or None, offset=offset, chunk_size=_LIST_PAGE)
        found = next(iter(stream), [])
        return [ObjectInfo(o["path"].removeprefix(self._prefix), o["size"], o["e_tag"]) for o in found]

    # -- many objects

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        """Small objects, side by side, in the order of the keys. Raises InputMissing."""
        found: dict[str, bytes] = {}
        for_each(keys, lambda key: found.__setitem__(key, self.get_bytes(key)), limit=DEFAULT_LIMIT)
        return [found[key] for key in keys]

    def download_file(self, item: Download, progress: Progress | None = None) -> None:
        """Fetch one object to a file, in parallel parts when large; the file appears when whole."""
        self.download_all([item], progress=progress)

    def download_all(
        self, items: Iterable[Download], *, limit: int = DEFAULT_LIMIT, progress: Progress | None = None
    ) -> None:
        """Fetch many objects, at most `limit` requests at once. The first error stops the rest."""
        Downloads(self, progress).run(items, limit)

    def upload_all(
        self,
        items: Iterable[Upload],
        *,
        limit: int = 8,
        skip_same: bool = True,
        progress: Progress | None = None,
    ) -> int:
        """Send many files; those already there with equal size and sha256 are skipped. Returns bytes sent."""
        lock, sent = threading.Lock(), 0

        def send(item: Upload) -> None:
            nonlocal sent
            digest = item.sha256 or sha256_file(item.path)
            size = file_size(item.path)
            there = self.head(item.key) if skip_same else None
            if there is None or (there.size, there.sha256) != (size, digest):
                self.put_file(item.key, item.path, digest)
                with lock:
                    sent += size
            if progress:
                progress(size)

        for_each(items, send, limit=limit)
        return sent

    def probe_conditional_writes(self) -> None:
        """Refuse a store on which two pods could both believe that they created one key.

        Raises:
            InvalidSpec: of 16 creates of one key at once, not exactly one won.
        """
        key = f"probe/{secrets.token_hex(8)}"
        barrier = threading.Barrier(_PROBE_RACERS)
        wins: list[bytes] = []

        def race(number: int) -> None:
            mine = f"racer {number}".encode()
            barrier.wait(timeout=30)
            if self.create(key, mine):
                wins.append(mine)

        for_each(range(_PROBE_RACERS), race, limit=_PROBE_RACERS)
        stored = self.get_bytes(key)
        self.delete([key])
        if len(wins) > 1 or wins[:1] not in ([], [stored]):  # none: the winner's answer got lost
            raise InvalidSpec(
                f"{self._named()} doesn't honour conditional writes "
                f"({len(wins)} of {_PROBE_RACERS} creates of one key won), so a stale pod could overwrite a "
                "newer one: use a store that does, or set checkpoint.fencing to Off."
            )

    def _named(self) -> str:
        """What keeps the objects, as messages name it."""
        return f"The S3 service at {self._endpoint or 'AWS'}"

    # -- requests

    def request_whole(self, key: str) -> tuple[int, str | None, bytes | None]:
        """Size, ETag and bytes of an object; no bytes when it is larger than one part."""

        def request() -> tuple[int, str | None, bytes | None]:
            found = obstore.get(self._inner, self._path(key))
            size = found.meta["size"]
            return size, found.meta["e_tag"], found.bytes().to_bytes() if size <= PART_BYTES else None

        return self._run(key, request)

    def request_part(self, key: str, start: int, end: int, e_tag: str | None) -> bytes:
        """One part of an object, of the version with this ETag if one is given."""
        options: GetOptions = {"range": (start, end)}
        if e_tag:
            options["if_match"] = e_tag

        def request() -> bytes:
            return obstore.get(self._inner, self._path(key), options=options).bytes().to_bytes()

        return self._run(key, request)

    def _put(self, key: str, source: bytes | Path, attributes: dict[str, str] | None) -> str | None:
        done = obstore.put(
            self._inner,
            self._path(key),
            source,
            attributes=attributes,
            chunk_size=PART_BYTES,
            max_concurrency=4,
        )
        return done["e_tag"]

    def _path(self, key: str) -> str:
        return f"{self._prefix}{key}"

    def _run(self, key: str, request: Callable[[], T], doing: str = "reading") -> T:
        uri = self.uri_of(key)
        return self.retries.run(request, lambda exc: self._understand(exc, uri, doing))

    def _understand(self, exc: BaseException, uri: str, doing: str = "reading") -> errors.Failure:
        return errors.classify(exc, uri, self._endpoint, doing)

    def _found(self, key: str, request: Callable[[], T]) -> T | None:
        def tolerant() -> T | None:
            try:
                return request()
            except Exception as exc:
                if not self._understand(exc, self.uri_of(key)).missing_object:
                    raise
                return None

        return self._run(key, tolerant)

    def _present(self, key: str, data: T | None) -> T:
        if data is None:
            raise errors.missing_object(self.uri_of(key))
        return data
