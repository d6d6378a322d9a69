"""The report server's certificate and the CA that signs it, kept in the state folder. Called by `app`.

The CA goes into a ConfigMap of every run, so pods trust exactly this server. Both are renewed before they
expire; a running server takes the new certificate without a restart.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rectrain_api.errors import UsageError

CA_DAYS: Final = 3650
SERVING_DAYS: Final = 90
RENEW_SERVING_DAYS: Final = 30
RENEW_CA_DAYS: Final = 365
CLOCK_SKEW: Final = timedelta(minutes=10)


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
    """The pairs of one state folder, for one host name or address."""

    def __init__(self, folder: Path, host: str) -> None:
        self._folder = folder
        self._host = host
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ca_pem = ""

    def refresh(self, now: datetime) -> bool:
        """Load, make or renew; True when something new was made. Raises UsageError when it can't be kept."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            made_ca, ca = self._pair("ca", now, RENEW_CA_DAYS, issuer=None)
            made_serving, serving = self._pair("serving", now, RENEW_SERVING_DAYS, issuer=ca)
        except OSError as failed:
            raise UsageError(
                f"The state folder {self._folder} can't be used ({failed.strerror}): "
                "give another with --state-dir."
            ) from failed
        self.context.load_cert_chain(self._folder / "serving.crt", self._folder / "serving.key")
        self.ca_pem = ca.pem.decode()
        del serving
        return made_ca or made_serving

    def _pair(self, name: str, now: datetime, renew_days: int, *, issuer: Pair | None) -> tuple[bool, Pair]:
        known = self._load(name)
        if known is not None and self._good(known, now + timedelta(days=renew_days), issuer):
            return False, known
        pair = make_ca(now) if issuer is None else make_serving(issuer, self._host, now)
        _write(self._folder / f"{name}.key", pair.key_pem)
        _write(self._folder / f"{name}.crt", pair.pem)
        return True, pair

    def _load(self, name: str) -> Pair | None:
        try:
            certificate = x509.load_pem_x509_certificate((self._folder / f"{name}.crt").read_bytes())
            key = serialization.load_pem_private_key((self._folder / f"{name}.key").read_bytes(), None)
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            return None  # killed between the two writes
        return Pair(certificate, key)

    def _good(self, pair: Pair, until: datetime, issuer: Pair | None) -> bool:
        if pair.certificate.not_valid_after_utc < until:
            return False
        if issuer is None:
            return True
        try:
            pair.certificate.verify_directly_issued_by(issuer.certificate)
        except Exception:
            return False
        names = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return _alternative_name(self._host) in list(names)


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


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by us alone."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.replace(path)
