"""What `decide` gets and what it answers. Plain data, so that a test can be a table."""

from dataclasses import dataclass, field

from rectrain_api.report import ProgressReport
from rectrain_api.status import RecTrainingJobStatus
from rectrain_operator.keys import Manifest
from rectrain_operator.settings import PodSettings
from rectrain_operator.views import JobView, PodView


@dataclass(frozen=True)
class Taken:
    """A progress report that was accepted, and the pod it came from."""

    pod_name: str
    pod_uid: str
    report: ProgressReport


@dataclass(frozen=True)
class Refusal:
    """The API server, or another's object, keeps a child from being made."""

    reason: str
    message: str
    final: bool
    """Asking again can't help."""


@dataclass(frozen=True)
class Seen:
    """All that is known of one run at one moment."""

    run: Manifest
    status: RecTrainingJobStatus
    settings: PodSettings
    batch: JobView | None = None
    pods: tuple[PodView, ...] = ()
    """Pods of this run, oldest first, gone ones too."""
    report: Taken | None = None
    present: frozenset[str] = frozenset()
    """Names of "kind/name" of the small children known to be ours, and up to date."""
    plan_epochs: int | None = None
    """Epochs of the run plan as it is in its ConfigMap; None while that wasn't read."""
    refusal: Refusal | None = None
    source: str | None = None
    """checkpoint.uri of the run that model.pretrained.fromJob names, when it was just found."""


@dataclass(frozen=True)
class EventNote:
    """One Kubernetes Event to write. `key` makes its name: the same happening is written once."""

    kind: str
    """Normal or Warning."""
    reason: str
    message: str
    key: str


@dataclass(frozen=True)
class Decision:
    """What to do, and what status to show."""

    status: RecTrainingJobStatus
    children: tuple[Manifest, ...] = ()
    """To create, in this order; those that are there already are left alone."""
    job_patch: Manifest | None = None
    plan_epochs: int | None = None
    """What the run plan's epochs are to be raised to."""
    events: tuple[EventNote, ...] = field(default=())
    requeue_after_s: float | None = None
