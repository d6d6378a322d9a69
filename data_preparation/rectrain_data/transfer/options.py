"""How S3 is reached: endpoint, region, addressing, keys, and where each of them came from.

Explicit values (the job's `s3` section) win over `AWS_*` names of the environment, which win over an AWS
profile, as in every AWS tool. `describe()` is what `rectrain-trainer run` prints, so that a user sees
which of several accounts is about to be used; it never holds a secret.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
from obstore.auth.boto3 import Boto3CredentialProvider

from rectrain_api.errors import InvalidSpec, PermissionRefused

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential, S3CredentialProvider

AddressingStyle = Literal["Path", "Virtual"]
DEFAULT_REGION = "us-east-1"
_ASK_AGAIN = timedelta(0)
"""How long keys are kept besides botocore, which knows when a session ends and renews it before. obstore
would keep them for half an hour, and those that had less left would be refused."""
_NO_KEYS = (
    "No S3 keys were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name an AWS profile in "
    "AWS_PROFILE, or give the pod a service account with access to the bucket."
)


@dataclass(frozen=True)
class StaticKeys:
    """Keys as they stand in the environment."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def credential(self) -> "S3Credential":
        """As obstore wants them."""
        return {
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "token": self.token,
            "expires_at": None,
        }


@dataclass(frozen=True)
class S3Options:
    """One way to an S3 service. Make it by `from_environment`."""

    endpoint: str | None = None
    region: str = DEFAULT_REGION
    addressing_style: AddressingStyle | None = None
    """None: Path when an endpoint is set, else Virtual."""
    profile: str | None = None
    ca_bundle: Path | None = None
    keys: StaticKeys | None = None
    """None: every other AWS way of signing in (profile, SSO, IRSA, pod identity, instance)."""
    endpoint_from: str = "AWS's own"
    keys_from: str = "the AWS default chain"

    @classmethod
    def from_environment(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        addressing_style: AddressingStyle | None = None,
    ) -> "S3Options":
        """Resolve what is not given here from `AWS_*` names, then from an AWS profile.

        Raises:
            InvalidSpec: the profile, endpoint or CA bundle named can't be used.
        """
        env = os.environ if env is None else env
        profile = env.get("AWS_PROFILE") or None
        keys = _keys_of(env)
        found, source = _endpoint_of(env, endpoint, profile, region)
        bundle = env.get("AWS_CA_BUNDLE") or None
        return cls(
            endpoint=found,
            region=region
            or env.get("AWS_REGION")
            or env.get("AWS_DEFAULT_REGION")
            or _profile_region(profile),
            addressing_style=addressing_style,
            profile=profile,
            ca_bundle=Path(bundle) if bundle else None,
            keys=keys,
            endpoint_from=source,
            keys_from=_keys_source(keys, profile, env),
        )

    def describe(self) -> str:
        """Where endpoint and keys come from, in one line, without a secret."""
        where = self.endpoint or f"AWS S3 in {self.region}"
        key = f" ({self.keys.access_key[:4]}…)" if self.keys else ""
        bundle = f", CA bundle {self.ca_bundle}" if self.ca_bundle else ""
        return f"S3 endpoint {where} (from {self.endpoint_from}), keys from {self.keys_from}{key}{bundle}"

    def virtual(self, bucket: str) -> bool:
        """Whether the bucket goes into the host name; one with dots can't (no certificate fits it)."""
        style = self.addressing_style or ("Path" if self.endpoint else "Virtual")
        return style == "Virtual" and (self.addressing_style is not None or "." not in bucket)

    def config(self, bucket: str) -> "S3Config":
        """obstore's configuration. Everything is said, since obstore would read the environment too."""
        config: S3Config = {
            "region": self.region,
            "virtual_hosted_style_request": self.virtual(bucket),
            "checksum_algorithm": "SHA256",
            "skip_signature": False,
        }
        if self.endpoint:
            config["endpoint"] = self._endpoint_for(bucket)
            config["aws_endpoint_url_s3"] = config["endpoint"]
        return config

    def _endpoint_for(self, bucket: str) -> str:
        endpoint = (self.endpoint or "").rstrip("/")
        if not self.virtual(bucket):
            return endpoint
        parts = urlsplit(endpoint)
        return f"{parts.scheme}://{bucket}.{parts.netloc}"

    def client_config(self) -> "ClientConfig":
        """obstore's HTTP client. Timeouts are per request; requests are at most one part (8 MiB) long."""
        config: ClientConfig = {
            "allow_http": bool(self.endpoint and self.endpoint.startswith("http://")),
            "connect_timeout": "5s",
            "timeout": "60s",
        }
        if self.ca_bundle:
            try:
                config["root_certificate"] = self.ca_bundle.read_bytes()
            except OSError as exc:
                raise InvalidSpec(
                    f"The CA bundle {self.ca_bundle} (AWS_CA_BUNDLE) can't be read ({exc.strerror}): "
                    "correct the path or unset the variable."
                ) from exc
        return config

    def credential_provider(self) -> "S3CredentialProvider":
        """What obstore calls for keys. It is called once here, so that a lack of keys shows at once.

        Raises:
            PermissionRefused: there are no keys, or signing in failed.
        """
        if self.keys:
            keys = self.keys
            return keys.credential
        try:
            provider = Boto3CredentialProvider(_session(self.profile), ttl=_ASK_AGAIN)
            provider()
        except ValueError as exc:
            raise PermissionRefused(_NO_KEYS) from exc
        except botocore.exceptions.BotoCoreError as exc:
            raise PermissionRefused(
                f"Signing in to S3 with {self.keys_from} failed ({exc}): sign in again (aws sso login), "
                "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from exc
        return provider


def _keys_of(env: Mapping[str, str]) -> StaticKeys | None:
    access, secret = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
    if bool(access) != bool(secret):
        given, lacking = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if access else -1]
        raise InvalidSpec(f"{given} is set but {lacking} isn't: set both, or neither to use an AWS profile.")
    if not access or not secret:
        return None
    return StaticKeys(access, secret, env.get("AWS_SESSION_TOKEN") or None)


def _keys_source(keys: StaticKeys | None, profile: str | None, env: Mapping[str, str]) -> str:
    if keys:
        return "AWS_ACCESS_KEY_ID of the environment"
    if profile:
        return f"the AWS profile {profile}"
    if env.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return "the service account (AWS_WEB_IDENTITY_TOKEN_FILE)"
    return "the AWS default chain"


def _endpoint_of(
    env: Mapping[str, str], given: str | None, profile: str | None, region: str | None
) -> tuple[str | None, str]:
    """The endpoint and the words for where it came from."""
    candidates = [(given, "the job's s3.endpoint")]
    candidates += [
        (env.get(k), f"{k} of the environment") for k in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    ]
    if profile:
        candidates.append((_profile_endpoint(profile, region), f"the AWS profile {profile}"))
    for endpoint, source in candidates:
        if endpoint:
            if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc:
                raise InvalidSpec(
                    f"The S3 endpoint {endpoint!r} (from {source}) isn't a URL: write it like "
                    "https://minio.example:9000."
                )
            return endpoint.rstrip("/"), source
    return None, "AWS's own"


def _session(profile: str | None) -> boto3.Session:
    try:
        return boto3.Session(profile_name=profile)
    except botocore.exceptions.ProfileNotFound as exc:
        raise InvalidSpec(
            f"The AWS profile {profile} (AWS_PROFILE) isn't in the AWS configuration: "
            "correct its name or unset AWS_PROFILE."
        ) from exc


def _profile_region(profile: str | None) -> str:
    return (_session(profile).region_name if profile else None) or DEFAULT_REGION


def _profile_endpoint(profile: str, region: str | None) -> str | None:
    """A profile may set endpoint_url for all services or for s3 alone; botocore knows the rules."""
    session: Any = _session(profile)
    url = str(
        session.client("s3", region_name=region or session.region_name or DEFAULT_REGION).meta.endpoint_url
    )
    host = urlsplit(url).hostname or ""
    return None if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else url
