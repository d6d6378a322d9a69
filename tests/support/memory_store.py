"""A store in memory with the faults of a real one: crashes around a put, lost replies, being away.

Stands in for `rectrain_data.transfer.Store` where a test needs faults at exact moments; the integration
tests use a real S3 service.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from rectrain_api.errors import InputMissing, RectrainError, StoreUnavailable
from rectrain_data.transfer import Corrupt, Download, ObjectInfo, Upload
from rectrain_data.transfer.errors import missing_object


class SimulatedCrash(BaseException):
    """The pod is gone at this moment."""


class MemoryStore:
    """`fault` strikes once, at the next create: "before", "after" (both crash), "lost" (the reply to a
    request that is repeated), "unanswered" (the same, given up).

    `fail_once` strikes at the next download.
    """

    uri = "s3://memory/run"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault = ""
        self.away = False
        self.before_create: Callable[[], None] | None = None
        self.uploaded: list[str] = []
        self.copied: list[str] = []
        self.edited: set[str] = set()
        self.fail_once: RectrainError | None = None
        self.crash_after_uploads: int | None = None

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def create(self, key: str, data: bytes) -> bool:
        self._reach()
        if self.before_create is not None:
            hook, self.before_create = self.before_create, None
            hook()
        fault, self.fault = self.fault, ""
        if fault == "before":
            raise SimulatedCrash
        if key in self.objects:
            return False
        self.objects[key] = data
        if fault == "after":
            raise SimulatedCrash
        if fault == "unanswered":
            raise StoreUnavailable("S3 doesn't answer (simulated).")
        return fault != "lost"

    def get(self, key: str) -> bytes | None:
        self._reach()
        return self.objects.get(key)

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        self._reach()
        return [self.objects[key] for key in keys]

    def list_keys(self, prefix: str, after: str = "") -> Sequence[str]:
        return [info.key for info in self.list_objects(prefix) if info.key > after]

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._reach()
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(self.objects[key]), None)

    def put(self, key: str, data: bytes) -> None:
        """Refuses another content under a key of a checkpoint: such a prefix is never written twice."""
        self._reach()
        if self.crash_after_uploads is not None:
            if self.crash_after_uploads == 0:
                self.crash_after_uploads = None
                raise SimulatedCrash
            self.crash_after_uploads -= 1
        if "/step-" in key and self.objects.get(key, data) != data:
            raise AssertionError(f"{key} is written twice")
        self.objects[key] = data
        self.uploaded.append(key)

    def upload_all(self, items: Iterable[Upload], *, limit: int = 8) -> int:
        sent = 0
        for item in items:
            data = item.path.read_bytes()
            self.put(item.key, data)
            sent += len(data)
        return sent

    def head(self, key: str) -> ObjectInfo | None:
        """Its hash is that of the upload: an object changed by other tools has none."""
        self._reach()
        data = self.objects.get(key)
        sha256 = self.sha256(key) if key not in self.edited else None
        return None if data is None else ObjectInfo(key, len(data), None, sha256)

    def download_all(self, items: Iterable[Download]) -> None:
        """With the real checks."""
        self._reach()
        failure, self.fail_once = self.fail_once, None
        if failure:
            raise failure
        for item in items:
            if item.key not in self.objects:
                raise missing_object(self.uri_of(item.key))
            if self.sha256(item.key) != item.sha256:
                raise Corrupt(f"{self.uri_of(item.key)} differs.")
            item.path.parent.mkdir(parents=True, exist_ok=True)
            item.path.write_bytes(self.objects[item.key])

    def copy(self, source: str, target: str) -> None:
        self._reach()
        if source not in self.objects:
            raise InputMissing(f"{source} isn't there")
        self.objects[target] = self.objects[source]
        self.copied.append(target)

    def delete(self, keys: Sequence[str]) -> None:
        self._reach()
        for key in keys:
            self.objects.pop(key, None)

    def sha256(self, key: str) -> str | None:
        """Hash of an object that is there."""
        data = self.objects.get(key)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("S3 is away (simulated).")
