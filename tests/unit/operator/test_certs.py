"""The report server's certificate: kept in a folder or a Secret, renewed in time, mended when damaged."""

import base64
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rectrain_api.errors import UsageError
from rectrain_operator.cert_store import NAMES, FolderStore, SecretStore
from rectrain_operator.certs import Certificates
from rectrain_operator.client import ApiError
from tests.unit.operator import make


def in_folder(folder: Path, host: str = "127.0.0.1") -> Certificates:
    return Certificates(FolderStore(folder), host)


async def test_kept_and_renewed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    first = in_folder(folder)
    assert await first.refresh(make.NOW)
    assert not await first.refresh(make.NOW)
    again = in_folder(folder)
    assert await again.refresh(make.NOW)
    assert again.ca_pem == first.ca_pem
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert await again.refresh(make.NOW + timedelta(days=61)), "the serving certificate is renewed in time"
    assert again.ca_pem == first.ca_pem, "under the same CA"
    assert await again.refresh(make.NOW + timedelta(days=3650))
    assert again.ca_pem != first.ca_pem


async def test_one_for_another_host_is_made_anew(tmp_path: Path) -> None:
    await in_folder(tmp_path).refresh(make.NOW)
    named = in_folder(tmp_path, "operator.svc")
    assert await named.refresh(make.NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / "serving.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["operator.svc"]
    ssl.create_default_context(cadata=named.ca_pem)


@pytest.mark.parametrize("damage", [b"", b"no key", None])
async def test_what_is_damaged_is_mended_by_who_holds_it(tmp_path: Path, damage: bytes | None) -> None:
    made = in_folder(tmp_path)
    await made.refresh(make.NOW)
    whole = (tmp_path / "ca.key").read_bytes()
    other = in_folder(tmp_path / "other")
    await other.refresh(make.NOW)
    wrong = (tmp_path / "other" / "ca.key").read_bytes() if damage is None else damage
    (tmp_path / "ca.key").write_bytes(wrong)
    assert not await made.refresh(make.NOW), "it serves on under its CA"
    assert (tmp_path / "ca.key").read_bytes() == whole
    (tmp_path / "ca.key").write_bytes(wrong)
    stranger = in_folder(tmp_path)
    assert await stranger.refresh(make.NOW)
    assert stranger.ca_pem not in (made.ca_pem, other.ca_pem)


async def test_a_state_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--state-dir"):
        await in_folder(tmp_path / "file").refresh(make.NOW)


class Api:
    """One Secret of an API server that may be away, or refuse, or be written to meanwhile."""

    def __init__(self) -> None:
        self.data: dict[str, str] | None = {}
        self.status = 0
        self.version = 1
        self.intruder: dict[str, str] | None = None

    async def get(self, path: str) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/system/secrets/certificate"
        self._refuse()
        secret = {"metadata": {"resourceVersion": str(self.version)}, "data": self.data}
        if self.intruder is not None:
            self.data, self.intruder, self.version = self.intruder, None, self.version + 1
        return secret

    async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._refuse()
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "changed")
        self.data = {**(self.data or {}), **body["data"]}
        self.version += 1
        return {}

    def _refuse(self) -> None:
        if self.data is None:
            raise ApiError(404, "not found")
        if self.status:
            raise ApiError(self.status, "refused")


def in_secret(api: Api) -> Certificates:
    return Certificates(SecretStore(api, "system", "certificate"), "operator.svc")  # type: ignore[arg-type]


async def test_an_empty_secret_is_filled_and_read_by_the_next() -> None:
    api = Api()
    first, second = in_secret(api), in_secret(api)
    assert await first.refresh(make.NOW)
    assert sorted(api.data or {}) == sorted(NAMES)
    assert base64.b64decode((api.data or {})["ca.crt"]).decode() == first.ca_pem
    version = api.version
    await second.refresh(make.NOW)
    assert (second.ca_pem, api.version) == (first.ca_pem, version)


async def test_a_secret_that_goes_and_comes_back() -> None:
    api = Api()
    made = in_secret(api)
    await made.refresh(make.NOW)
    kept, api.data = api.data, None
    assert not await made.refresh(make.NOW)
    assert "system/certificate is gone" in made.unkept
    assert "helm upgrade" in made.unkept
    api.data = {}
    assert not await made.refresh(make.NOW)
    assert (api.data, made.unkept) == (kept, "")


@pytest.mark.parametrize("status", [403, 404])
async def test_a_start_without_a_secret_serves_all_the_same(status: int) -> None:
    api = Api()
    api.status = status
    made = in_secret(api)
    assert await made.refresh(make.NOW)
    assert made.ca_pem
    assert made.unkept
    api.status = 0
    assert not await made.refresh(make.NOW)
    assert (api.data or {})["ca.crt"] == base64.b64encode(made.ca_pem.encode()).decode()


async def test_two_operators_at_once_end_under_one_ca() -> None:
    api, other = Api(), Api()
    winner = in_secret(other)
    await winner.refresh(make.NOW)
    api.intruder = other.data
    loser = in_secret(api)
    await loser.refresh(make.NOW)
    assert loser.ca_pem == winner.ca_pem
    assert api.data == other.data


@pytest.mark.parametrize("status", [0, 500])
async def test_an_api_server_that_is_away_is_no_lost_secret(status: int) -> None:
    class Away(Api):
        def _refuse(self) -> None:
            raise ApiError(status, "away")

    with pytest.raises(ApiError):
        await in_secret(Away()).refresh(make.NOW)


async def test_rubbish_in_the_secret_is_replaced() -> None:
    api = Api()
    api.data = {"ca.crt": "!", "mine": "eA=="}
    made = in_secret(api)
    await made.refresh(make.NOW)
    assert sorted(api.data) == sorted([*NAMES, "mine"])
