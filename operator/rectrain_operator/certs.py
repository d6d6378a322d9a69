"""The report server's certificate and the CA that signs it, kept in a store. Called by `app`.

The CA goes into a ConfigMap of every run, so pods trust exactly this server. Both are renewed before they
expire; a running server takes the new certificate without a restart.
"""

import ipaddress
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rectrain_operator.cert_store import CertificateStore, StoreChanged, StoreMissing

CA_DAYS: Final = 3650
SERVING_DAYS: Final = 90
RENEW_SERVING_DAYS: Final = 30
RENEW_CA_DAYS: Final = 365
CLOCK_SKEW: Final = timedelta(minutes=10)
WRITE_TRIES: Final = 5


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Certificates:
    """CA and serving certificate for one host name or address, and what serves them."""

    def __init__(self, store: CertificateStore, host: str) -> None:
        self._store = store
        self._host = host
        self._ca: Pair | None = None
        self._serving: Pair | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ca_pem = ""
        self.unkept = ""
        """Why what we hold is kept nowhere but in memory; empty while it is kept."""

    async def refresh(self, now: datetime) -> bool:
        """Load, make or renew; True when something new is served.

        What is kept wins over what we hold, so that all operators over one store serve under one CA; what we
        hold fills a store that lost it. Raises UsageError, ApiError.
        """
        for _ in range(WRITE_TRIES):
            try:
                kept = await self._store.load()
                pairs = self._chosen(kept, now)
                files = files_of(*pairs)
                if files != kept:
                    await self._store.save(files)
                self.unkept = ""
            except StoreChanged:
                continue
            except StoreMissing as missing:
                self.unkept = str(missing)
                pairs = self._chosen({}, now)
            return self._serve(*pairs)
        return False  # somebody writes all the time: next time

    def _chosen(self, kept: Mapping[str, bytes], now: datetime) -> tuple[Pair, Pair]:
        """CA and serving pair: the kept one, else the held one, else a new one."""
        ca_until, until = now + timedelta(days=RENEW_CA_DAYS), now + timedelta(days=RENEW_SERVING_DAYS)
        authorities = (pair_of(kept, "ca"), self._ca)
        ca = next((p for p in authorities if p and p.certificate.not_valid_after_utc >= ca_until), None)
        ca = ca or make_ca(now)
        servings = (pair_of(kept, "serving"), self._serving)
        serving = next((p for p in servings if p and serves(p, self._host, ca, until)), None)
        return ca, serving or make_serving(ca, self._host, now)

    def _serve(self, ca: Pair, serving: Pair) -> bool:
        if self._serving is not None and self._serving.pem == serving.pem:
            return False
        with tempfile.TemporaryDirectory(prefix="rectrain-") as folder:  # OpenSSL reads files alone
            for name, content in files_of(ca, serving).items():
                (Path(folder) / name).write_bytes(content)
            self.context.load_cert_chain(Path(folder) / "serving.crt", Path(folder) / "serving.key")
        self._ca, self._serving = ca, serving
        self.ca_pem = ca.pem.decode()
        return True


def files_of(ca: Pair, serving: Pair) -> dict[str, bytes]:
    """As they are kept."""
    return {
        "ca.key": ca.key_pem,
        "ca.crt": ca.pem,
        "serving.key": serving.key_pem,
        "serving.crt": serving.pem,
    }


def pair_of(files: Mapping[str, bytes], name: str) -> Pair | None:
    """One of the kept pairs, if it is whole."""
    try:
        certificate = x509.load_pem_x509_certificate(files[f"{name}.crt"])
        key = serialization.load_pem_private_key(files[f"{name}.key"], None)
    except (KeyError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None  # killed between the two writes
    return Pair(certificate, key)


def serves(pair: Pair, host: str, ca: Pair, until: datetime) -> bool:
    """Whether a certificate is this CA's, for this host, and good for long enough."""
    if pair.certificate.not_valid_after_utc < until:
        return False
    try:
        pair.certificate.verify_directly_issued_by(ca.certificate)
        names = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        return False
    return _alternative_name(host) in list(names)


def make_ca(now: datetime) -> Pair:
    """A new CA that may sign servers and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rectrain report CA")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = _builder(name, name, key, now, CA_DAYS).add_extension(usage, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def make_serving(ca: Pair, host: str, now: datetime) -> Pair:
    """A new serving certificate for one host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rectrain-operator")])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    builder = (
        _builder(name, ca.certificate.subject, key, now, SERVING_DAYS)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
    )
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
