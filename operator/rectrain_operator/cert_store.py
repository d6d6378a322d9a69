"""Where the certificates are kept: a folder, or the Secret that the chart makes empty. Used by `certs`."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from rectrain_api.errors import UsageError
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient

NAMES: Final = ("ca.key", "ca.crt", "serving.key", "serving.crt")
"""Files of the folder, keys of the Secret; PEM. A key is written before its certificate."""
_REFUSED: Final = frozenset({403, 404})


class StoreMissing(Exception):
    """There is no place to keep certificates now; a sentence for the user."""


class StoreChanged(Exception):
    """Somebody else wrote since `load`."""


class CertificateStore(Protocol):
    """Keeps the files of `NAMES`."""

    async def load(self) -> dict[str, bytes]:
        """What is there. Raises StoreMissing, ApiError, UsageError."""

    async def save(self, files: Mapping[str, bytes]) -> None:
        """Replace what `load` has given. Raises StoreMissing, StoreChanged, ApiError, UsageError."""


class FolderStore:
    """A folder of this machine, for an operator outside a cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self) -> dict[str, bytes]:
        """See CertificateStore."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            there = [name for name in NAMES if (self._folder / name).exists()]
            return {name: (self._folder / name).read_bytes() for name in there}
        except OSError as failed:
            raise self._unusable(failed) from failed

    async def save(self, files: Mapping[str, bytes]) -> None:
        """See CertificateStore."""
        try:
            for name in NAMES:
                _write(self._folder / name, files[name])
        except OSError as failed:
            raise self._unusable(failed) from failed

    def _unusable(self, failed: OSError) -> UsageError:
        return UsageError(
            f"The state folder {self._folder} can't be used ({failed.strerror}): "
            "give another with --state-dir."
        )


class SecretStore:
    """A Secret that the chart makes and that may only be read and changed here, never created."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self._client = client
        self._version = ""

    async def load(self) -> dict[str, bytes]:
        """See CertificateStore."""
        try:
            secret = await self._client.get(self._path)
        except ApiError as failed:
            raise self._meant(failed) from failed
        self._version = secret["metadata"]["resourceVersion"]
        data = secret.get("data") or {}
        try:
            return {name: base64.b64decode(data[name]) for name in NAMES if name in data}
        except ValueError:
            return {}  # not what we wrote

    async def save(self, files: Mapping[str, bytes]) -> None:
        """See CertificateStore."""
        body = {
            "metadata": {"resourceVersion": self._version},
            "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
        }
        try:
            await self._client.merge_patch(self._path, body)
        except ApiError as failed:
            if failed.status == 409:
                raise StoreChanged from failed
            raise self._meant(failed) from failed

    @property
    def _path(self) -> str:
        return paths.single("Secret", self.namespace, self.name)

    def _meant(self, failed: ApiError) -> ApiError | StoreMissing:
        """A Secret that is gone or forbidden is no reason to stop; an API server that is away comes back."""
        if failed.status not in _REFUSED:
            return failed
        what = "is gone" if failed.status == 404 else "may not be read and changed by this account"
        return StoreMissing(
            f"The Secret {self.namespace}/{self.name} {what}: the operator goes on with the certificate it "
            "holds in memory; `helm upgrade` brings the Secret back."
        )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by us alone."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.replace(path)
