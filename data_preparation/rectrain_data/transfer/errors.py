"""What obstore raises, mapped once to our errors, each a sentence naming the URI.

Called by `transfer.store` around every request. obstore has few exception types (a refused list is a
GenericError), so status and S3's own error code are read out of the message too.
"""

import re
from dataclasses import dataclass

import obstore.exceptions as obs

from rectrain_api.errors import InputMissing, InvalidSpec, PermissionRefused, RectrainError, StoreUnavailable
from rectrain_data.transfer.files import Corrupt

_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_TRANSIENT_CODES = frozenset(
    {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted", "Throttling"}
)
_DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_DENIED_WHY = {
    "AccessDenied": "these keys may not do that there: grant the bucket's permissions to them",
    "AuthorizationHeaderMalformed": "the region doesn't fit the bucket: set s3.region or AWS_REGION",
    "ExpiredToken": "the session token has expired: sign in again",
    "InvalidAccessKeyId": "it doesn't know the access key: check AWS_ACCESS_KEY_ID and the endpoint",
    "InvalidToken": "the session token isn't valid: check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is off: set it right",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
}
_UNSAID = (
    "it answers HTTP 400 and doesn't say why: the session token has expired (sign in again), or the region "
    "doesn't fit the bucket (set s3.region or AWS_REGION)"
)
_DEFAULT_DENIED = "check the access key, the secret key and their permissions"


@dataclass(frozen=True)
class Failure:
    """One failed request, understood."""

    error: RectrainError
    transient: bool
    """Worth another try: the service may come back."""
    missing_object: bool = False
    """404 that doesn't say whether it's the object or the bucket."""


def code_of(exc: BaseException) -> str | None:
    """S3's own error code, if the answer had one."""
    match = _CODE.search(str(exc))
    return match.group(1) if match else None


def status_of(exc: BaseException) -> int | None:
    """The HTTP status, if there was an answer."""
    match = _STATUS.search(str(exc))
    return int(match.group(1)) if match else None


def classify(exc: BaseException, uri: str, endpoint: str | None, doing: str = "reading") -> Failure:
    """What a failed request on `uri` means. `exc` is anything that obstore raises."""
    code, status = code_of(exc), status_of(exc)
    where = endpoint or "AWS"
    if code == "NoSuchBucket":
        return Failure(missing_bucket(uri, endpoint), transient=False)
    if isinstance(exc, FileNotFoundError) or code == "NoSuchKey":
        return Failure(missing_object(uri), transient=False, missing_object=True)
    if (
        code in _DENIED_CODES
        or isinstance(exc, obs.PermissionDeniedError | obs.UnauthenticatedError)
        or status in (401, 403)
        or (status, code) == (400, None)  # the answer to a HEAD has no body that could say more
    ):
        why = _DENIED_WHY.get(code or "", _UNSAID if status == 400 else _DEFAULT_DENIED)
        label = f" ({code})" if code else ""
        return Failure(
            PermissionRefused(f"The S3 service at {where} refuses {doing} {uri}{label}: {why}."),
            transient=False,
        )
    if isinstance(exc, obs.PreconditionError):
        return Failure(Corrupt(f"{uri} was changed while it was read: read it again."), transient=False)
    if status == 416:
        return Failure(Corrupt(f"{uri} is shorter than expected: upload it again."), transient=False)
    if isinstance(exc, ValueError):
        return Failure(
            InvalidSpec(f"{uri} isn't a usable S3 URI ({exc}): write s3://bucket/key without '..' or '//'."),
            transient=False,
        )
    if status is not None and not _is_transient(status, code):
        return Failure(_refused(uri, doing, where, status, code), transient=False)
    return Failure(_unavailable(exc, uri, where, status, code), transient=True)


def _is_transient(status: int, code: str | None) -> bool:
    if code in _TRANSIENT_CODES or status in (408, 429):
        return True
    return status >= 500 and status != 501


def missing_bucket(uri: str, endpoint: str | None) -> InputMissing:
    """The bucket of a URI isn't there."""
    bucket = uri.removeprefix("s3://").split("/", 1)[0]
    return InputMissing(
        f"The bucket {bucket} of {uri} isn't there at {endpoint or 'AWS'}: "
        "create it, or correct the URI or the endpoint."
    )


def missing_object(uri: str) -> InputMissing:
    """The object of a URI isn't there."""
    return InputMissing(f"{uri} isn't there: upload it, or correct the URI.")


def _refused(uri: str, doing: str, where: str, status: int, code: str | None) -> RectrainError:
    if status in (301, 307, 400) and code in ("PermanentRedirect", "IllegalLocationConstraintException"):
        return InvalidSpec(f"The bucket of {uri} is in another region: set s3.region or AWS_REGION.")
    label = code or f"HTTP {status}"
    return InvalidSpec(
        f"The S3 service at {where} can't do what was asked of it ({doing} {uri}: {label}): "
        "check the URI, the endpoint and the addressing style."
    )


def _unavailable(
    exc: BaseException, uri: str, where: str, status: int | None, code: str | None
) -> StoreUnavailable:
    text = str(exc)
    if status is not None:
        why = f"it answers {code or 'HTTP'} {status}"
    elif "certificate" in text:
        why = "its certificate isn't trusted; name its CA in AWS_CA_BUNDLE"
    elif "dns error" in text:
        why = "its host name can't be resolved"
    elif "refused" in text:
        why = "it refuses connections"
    elif "timed out" in text or "TimedOut" in text or "Timeout" in text:
        why = "it doesn't answer in time"
    else:
        why = "the connection failed"
    return StoreUnavailable(
        f"The S3 service at {where} can't be reached for {uri} ({why}): check the endpoint and the network."
    )
