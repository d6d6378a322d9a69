"""What a pod's environment says, read once. Peers, addresses and paths come this way, never in the plan.

Called by the command line (for the supervisor) and by the child that trains.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_trainer.meeting import Seat

POD_WORK_DIR: Final = Path("/var/lib/rectrain")
POD_TERMINATION_LOG: Final = Path("/dev/termination-log")
RANK: Final = "PADDLE_TRAINER_ID"
WORLD: Final = "PADDLE_TRAINERS_NUM"
IN_POD: Final = "PADDLE_LOCAL_SIZE"
"""Names of Paddle's own, by which a supervisor tells its process which of how many ranks it is, and how many
there are in each pod."""
PEERS: Final = "RECTRAIN_PEERS"
"""Host name of each pod."""


@dataclass(frozen=True)
class ReportTarget:
    """The operator's report server, and what proves who we are. Files are read again at every use."""

    url: str
    """Base URL, such as https://rectrain-operator.rectrain:9443."""
    ca_file: Path | None
    token_file: Path | None


@dataclass(frozen=True)
class PodEnvironment:
    """Everything of RECTRAIN_*."""

    work_dir: Path | None
    """None: nobody chose one."""
    cache_dir: Path | None
    """Of a volume that runs share; None: the data is staged into the work folder."""
    termination_log: Path | None
    report: ReportTarget | None
    in_pod: bool
    job_uid: str = ""
    pod_uid: str = ""
    pod_name: str = ""
    node: str = ""
    seat: Seat | None = None
    """Among the pods of a run that has several."""

    @classmethod
    def read(cls, env: Mapping[str, str] | None = None) -> "PodEnvironment":
        """From `os.environ`, or from what a test gives."""
        env = os.environ if env is None else env
        in_pod = bool(env.get("RECTRAIN_POD_UID"))
        work_dir, cache_dir = env.get("RECTRAIN_WORK_DIR"), env.get("RECTRAIN_CACHE_DIR")
        return cls(
            work_dir=Path(work_dir) if work_dir else (POD_WORK_DIR if in_pod else None),
            cache_dir=Path(cache_dir) if cache_dir else None,
            termination_log=_termination_log(env.get("RECTRAIN_TERMINATION_LOG"), in_pod),
            report=_report_target(env),
            in_pod=in_pod,
            job_uid=env.get("RECTRAIN_JOB_UID", ""),
            pod_uid=env.get("RECTRAIN_POD_UID", ""),
            pod_name=env.get("RECTRAIN_POD_NAME", ""),
            node=env.get("RECTRAIN_NODE", ""),
            seat=_seat(env),
        )


def _termination_log(named: str | None, in_pod: bool) -> Path | None:
    if named:
        return Path(named)
    return POD_TERMINATION_LOG if in_pod and os.access(POD_TERMINATION_LOG, os.W_OK) else None


def _report_target(env: Mapping[str, str]) -> ReportTarget | None:
    url = env.get("RECTRAIN_REPORT_URL", "").rstrip("/")
    if not url:
        return None
    ca, token = env.get("RECTRAIN_REPORT_CA"), env.get("RECTRAIN_TOKEN_FILE")
    return ReportTarget(url, Path(ca) if ca else None, Path(token) if token else None)


def _seat(env: Mapping[str, str]) -> Seat | None:
    names = tuple(name for name in env.get(PEERS, "").split(",") if name)
    if len(names) < 2:
        return None
    address = env.get("RECTRAIN_POD_IP", "127.0.0.1")
    return Seat(int(env.get("RECTRAIN_RANK", 0)), names, env.get("RECTRAIN_JOB_UID", ""), address)


def laptop_work_dir() -> Path:
    """A folder of our own for a run outside a pod; the caller removes it."""
    return Path(tempfile.mkdtemp(prefix="rectrain-run-"))


def ensure_home(work_dir: Path) -> None:
    """A home that can be written, for Paddle's caches: a pod's user has none, on a read-only root."""
    home = os.environ.get("HOME", "")
    if not home or not os.access(home, os.W_OK | os.X_OK):
        folder = work_dir / "home"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(folder)
