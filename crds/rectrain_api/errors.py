"""Everything that can go wrong and is worth a sentence to the user.

Raised anywhere in ours, mapped to exit code, reason and retry policy in one place
(`rectrain_api.exit_codes`). `str(error)` is one sentence: what, where, how to mend it.

    RectrainError
      UsageError            the command line is off
      DatasetInvalid        labels, images or dictionary can't be trained on
      InputMissing          a bucket, object or file isn't there
      PermissionRefused     the store refuses the keys
      InvalidSpec           the manifest, preset or configuration can't work
      BatchTooLarge         one training step doesn't fit the device's memory
      RunConflict           the run's place in S3 belongs to something else
      ExportMismatch        the exported model doesn't read what training read
      NoProgress            attempt after attempt left no newer checkpoint
      Interrupted           told to stop (SIGTERM, suspend, drain)
      Fenced                a newer attempt of this run has taken over
      StoreUnavailable      S3 stayed away after bounded retries
      PeerLost              another pod of the run went away, or didn't come
      Diverged              the loss isn't a number any more
      Stalled               no step was done for too long
      DeviceUnavailable     this node's device or driver can't be used
      DiskTooSmall          this node's disk can't hold the data
      InternalError         a fault of ours
"""


class RectrainError(Exception):
    """Base of all: `str()` is the sentence that the user reads."""


class UsageError(RectrainError):
    """The command line can't be understood."""


class DatasetInvalid(RectrainError):
    """The data can't be trained on as it is."""


class InputMissing(RectrainError):
    """A bucket, object or file that was named isn't there."""


class PermissionRefused(RectrainError):
    """The store refuses what was asked with these keys."""


class InvalidSpec(RectrainError):
    """The manifest, preset or configuration can't work."""


class BatchTooLarge(InvalidSpec):
    """One training step doesn't fit the memory of the device, or the pod's."""


class RunConflict(InvalidSpec):
    """The run's place in S3 belongs to another run, or to another plan of this one."""


class ExportMismatch(RectrainError):
    """The exported model doesn't read what the trained one read."""


class NoProgress(RectrainError):
    """Several attempts in a row reached the first step and left no newer checkpoint."""


class Interrupted(RectrainError):
    """Told to stop before the end; the run goes on in another attempt."""


class Fenced(RectrainError):
    """A newer attempt of this same run owns it now."""


class StoreUnavailable(RectrainError):
    """S3 or another service stayed away after bounded retries."""


class PeerLost(RectrainError):
    """Another pod of the run went away, or didn't come."""


class InternalError(RectrainError):
    """A fault of ours, or one that nobody foresaw."""


class Diverged(RectrainError):
    """The loss became NaN or infinite."""

    def __init__(self, message: str, step: int = 0) -> None:
        """`step`: the optimizer step that went wrong."""
        super().__init__(message)
        self.step = step


class Stalled(RectrainError):
    """No training step was done for longer than runPolicy.stallTimeout."""


class NodeFault(RectrainError):
    """Something of this node is broken or too small; another node may do."""


class DeviceUnavailable(NodeFault):
    """The device asked for can't be used here."""


class DiskTooSmall(NodeFault):
    """The disk, or the volume given for it, can't hold the data."""
