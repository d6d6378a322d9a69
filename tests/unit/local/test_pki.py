"""Keys are the owner's alone, and each certificate opens its own door only."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rectrain_local.kubeconfig import write_kubeconfig
from rectrain_local.pki import Pki, make_pki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("keys") / "pki", api_hosts=["127.0.0.1", "localhost"])


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_folder_and_files_are_private(pki: Pki) -> None:
    assert stat.S_IMODE(pki.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in pki.folder.iterdir()} == {0o600}


def test_a_file_that_was_open_is_tightened(tmp_path: Path, pki: Pki) -> None:
    target = tmp_path / "kubeconfig"
    target.write_text("old")
    target.chmod(0o644)
    write_kubeconfig(target, server="https://127.0.0.1:1", ca=pki.ca.cert, user="a", credentials=pki.admin)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_no_two_clusters_share_a_key(tmp_path: Path, pki: Pki) -> None:
    other = make_pki(tmp_path / "pki", api_hosts=["127.0.0.1"])
    assert other.ca.cert.read_bytes() != pki.ca.cert.read_bytes()
    assert other.service_account_key.read_bytes() != pki.service_account_key.read_bytes()


@pytest.mark.parametrize(
    ("name", "common_name", "groups"),
    [
        ("admin", "rectrain-local:admin", ["system:masters"]),
        ("reader", "rectrain-local:reader", []),
        ("scheduler", "system:kube-scheduler", []),
        ("kubelet_client", "rectrain-local:apiserver-kubelet-client", []),
    ],
)
def test_identities(pki: Pki, name: str, common_name: str, groups: list[str]) -> None:
    subject = load(getattr(pki, name).cert).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [common_name]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == groups


def test_a_node_is_known_by_its_name(pki: Pki, tmp_path: Path) -> None:
    client, serving = pki.issue_node_credentials("node-1", tmp_path / "node")
    assert "CN=system:node:node-1" in load(client.cert).subject.rfc4514_string()
    usage = load(client.cert).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = load(serving.cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_etcd_trusts_another_authority(pki: Pki) -> None:
    """Who gets a certificate through the cluster's CSR API must not reach the database."""
    load(pki.etcd_client.cert).verify_directly_issued_by(load(pki.etcd_ca.cert))
    with pytest.raises(ValueError, match=r"[Ii]ssuer"):
        load(pki.admin.cert).verify_directly_issued_by(load(pki.etcd_ca.cert))


def test_openssl_takes_the_files(pki: Pki) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca.cert))
    context.load_cert_chain(pki.apiserver.cert, pki.apiserver.key)
