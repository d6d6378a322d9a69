"""The keys of one cluster: made at its start, random, and gone with it. Used by `controlplane` and `nodes`.

Three authorities, so that a certificate opens one door only: `ca` for everybody who speaks to the API server
and for what nodes serve, `etcd-ca` for etcd and the API server alone (a certificate signed through the
cluster's CSR API must not open the database), `front-proxy-ca` for aggregated APIs.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rectrain_local.files import private_dir, write_private

VALID_DAYS = 365
CLOCK_SKEW = datetime.timedelta(hours=1)

KUBELET_CLIENT = "rectrain-local:apiserver-kubelet-client"
READER = "rectrain-local:reader"
ADMIN_GROUP = "system:masters"
NODES_GROUP = "system:nodes"


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A CA whose key stays in memory and in a 0600 file."""

    files: Credentials
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert(self) -> Path:
        return self.files.cert


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> Credentials:
    return Credentials(
        cert=write_private(folder / f"{name}.crt", cert.public_bytes(serialization.Encoding.PEM)),
        key=write_private(folder / f"{name}.key", _pem_key(key)),
    )


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_authority(folder: Path, name: str) -> Authority:
    """A new self-signed CA, written as NAME.crt and NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"rectrain-local {name}")])
    certificate = (
        _builder(subject, key, datetime.datetime.now(datetime.UTC))
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(_write(folder, name, key, certificate), certificate, key)


def _alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def issue(
    authority: Authority,
    folder: Path,
    name: str,
    *,
    common_name: str,
    groups: Sequence[str] = (),
    hosts: Sequence[str] = (),
) -> Credentials:
    """A certificate for `common_name`; with `hosts` it may serve, without it is a client's only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    builder = (
        _builder(subject, key, datetime.datetime.now(datetime.UTC))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(_alternative_names(hosts)), critical=False
        )
    return _write(folder, name, key, builder.sign(authority.key, hashes.SHA256()))


@dataclass(frozen=True)
class Pki:
    """All keys of a cluster, in one folder (0700, files 0600)."""

    folder: Path
    ca: Authority
    etcd_ca: Authority
    front_proxy_ca: Authority
    etcd: Credentials
    etcd_client: Credentials
    apiserver: Credentials
    kubelet_client: Credentials
    front_proxy_client: Credentials
    service_account_key: Path
    service_account_public: Path
    admin: Credentials
    controller_manager: Credentials
    scheduler: Credentials
    reader: Credentials

    def issue_node_credentials(self, name: str, folder: Path) -> tuple[Credentials, Credentials]:
        """(client, serving) for a node: the client is system:node:NAME, the server the loopback's."""
        private_dir(folder)
        client = issue(self.ca, folder, "client", common_name=f"system:node:{name}", groups=[NODES_GROUP])
        serving = issue(
            self.ca,
            folder,
            "serving",
            common_name=f"system:node:{name}",
            groups=[NODES_GROUP],
            hosts=["127.0.0.1", "localhost", name],
        )
        return client, serving


def make_pki(folder: Path, *, api_hosts: Sequence[str]) -> Pki:
    """Make every key of a new cluster. `api_hosts`: names and addresses of the API server."""
    private_dir(folder)
    ca, etcd_ca = make_authority(folder, "ca"), make_authority(folder, "etcd-ca")
    front_proxy_ca = make_authority(folder, "front-proxy-ca")
    signer = ec.generate_private_key(ec.SECP256R1())
    public = signer.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def client(name: str, common_name: str, *groups: str) -> Credentials:
        return issue(ca, folder, name, common_name=common_name, groups=groups)

    return Pki(
        folder=folder,
        ca=ca,
        etcd_ca=etcd_ca,
        front_proxy_ca=front_proxy_ca,
        etcd=issue(etcd_ca, folder, "etcd", common_name="etcd", hosts=["127.0.0.1", "localhost"]),
        etcd_client=issue(etcd_ca, folder, "etcd-client", common_name="kube-apiserver"),
        apiserver=issue(ca, folder, "apiserver", common_name="kube-apiserver", hosts=api_hosts),
        kubelet_client=client("kubelet-client", KUBELET_CLIENT),
        front_proxy_client=issue(
            front_proxy_ca, folder, "front-proxy-client", common_name="front-proxy-client"
        ),
        service_account_key=write_private(folder / "service-account.key", _pem_key(signer)),
        service_account_public=write_private(folder / "service-account.pub", public),
        admin=client("admin", "rectrain-local:admin", ADMIN_GROUP),
        controller_manager=client("kube-controller-manager", "system:kube-controller-manager"),
        scheduler=client("kube-scheduler", "system:kube-scheduler"),
        reader=client("reader", READER),
    )
