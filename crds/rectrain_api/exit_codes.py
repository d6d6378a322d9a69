"""The one table from error to exit code, reason and what the Job controller does about it.

The trainer's supervisor and every command exit by it; the operator builds `podFailurePolicy` and
reads a pod's end from it. Codes follow sysexits.h where it has one.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from rectrain_api import errors as e

EX_OK: Final = 0
EX_USAGE: Final = 64
EX_DATAERR: Final = 65
EX_NOINPUT: Final = 66
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
EX_OSERR: Final = 71
EX_CANTCREAT: Final = 73
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75
EX_FENCED: Final = 76
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78

Policy = Literal["FailJob", "Ignore", "Count"]


class Outcome(NamedTuple):
    """How a run of the trainer ended."""

    exit_code: int
    reason: str
    policy: Policy


OUTCOMES: Final[Mapping[type[e.RectrainError], Outcome]] = {
    e.UsageError: Outcome(EX_USAGE, "Usage", "FailJob"),
    e.DatasetInvalid: Outcome(EX_DATAERR, "DatasetInvalid", "FailJob"),
    e.InputMissing: Outcome(EX_NOINPUT, "InputMissing", "FailJob"),
    e.PermissionRefused: Outcome(EX_NOPERM, "PermissionRefused", "FailJob"),
    e.InvalidSpec: Outcome(EX_CONFIG, "InvalidSpec", "FailJob"),
    e.BatchTooLarge: Outcome(EX_CONFIG, "BatchTooLarge", "FailJob"),
    e.RunConflict: Outcome(EX_CONFIG, "RunConflict", "FailJob"),
    e.ExportMismatch: Outcome(EX_CANTCREAT, "ExportMismatch", "FailJob"),
    e.NoProgress: Outcome(EX_IOERR, "NoProgress", "FailJob"),
    e.Interrupted: Outcome(EX_TEMPFAIL, "Interrupted", "Ignore"),
    e.Fenced: Outcome(EX_FENCED, "Fenced", "Ignore"),
    e.StoreUnavailable: Outcome(EX_UNAVAILABLE, "StoreUnavailable", "Count"),
    e.PeerLost: Outcome(EX_UNAVAILABLE, "PeerLost", "Count"),
    e.InternalError: Outcome(EX_SOFTWARE, "InternalError", "Count"),
    e.Diverged: Outcome(EX_SOFTWARE, "Diverged", "Count"),
    e.Stalled: Outcome(EX_SOFTWARE, "Stalled", "Count"),
    e.DeviceUnavailable: Outcome(EX_OSERR, "DeviceUnavailable", "Count"),
    e.DiskTooSmall: Outcome(EX_OSERR, "DiskTooSmall", "Count"),
}

# A pod that ended without our termination message is named after its exit code alone.
GENERIC_REASONS: Final[Mapping[int, str]] = {
    EX_USAGE: "Usage",
    EX_DATAERR: "DatasetInvalid",
    EX_NOINPUT: "InputMissing",
    EX_UNAVAILABLE: "StoreUnavailable",
    EX_SOFTWARE: "InternalError",
    EX_OSERR: "NodeFault",
    EX_CANTCREAT: "ExportMismatch",
    EX_IOERR: "NoProgress",
    EX_TEMPFAIL: "Interrupted",
    EX_FENCED: "Fenced",
    EX_NOPERM: "PermissionRefused",
    EX_CONFIG: "InvalidSpec",
}


def outcome_of(error: BaseException) -> Outcome:
    """The most specific row for an error; anything that isn't ours counts as a fault of ours."""
    for cls in type(error).__mro__:
        if cls in OUTCOMES:
            return OUTCOMES[cls]
    return OUTCOMES[e.InternalError]


def codes_with(policy: Policy) -> list[int]:
    """The exit codes that share a policy, sorted and unique as `podFailurePolicy` wants them."""
    return sorted({row.exit_code for row in OUTCOMES.values() if row.policy == policy})
