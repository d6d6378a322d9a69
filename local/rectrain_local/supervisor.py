"""The process that owns the cluster of `rectrain-local up`: `python -m rectrain_local.supervisor FOLDER`.

`background` starts it, tells it on stdin what to start, and reads from stdout, line by line as JSON, how far
it is. Until it is told to detach the two are bound together: if the command is killed, the kernel kills the
supervisor, and with it the supervisor's children. Afterwards it lives until SIGTERM (`rectrain-local down`),
or until a part of the cluster dies, which `rectrain-local status` then explains.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from rectrain_local import signals, state
from rectrain_local.assets.resolve import Binaries
from rectrain_local.cluster import Cluster, ClusterSpec
from rectrain_local.errors import LocalError
from rectrain_local.launch import PR_SET_PDEATHSIG

DETACH: Final = "detach\n"
WATCH_EVERY_S: Final = 0.5


class Order(BaseModel):
    """What to start; one line on stdin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int
    gpus: int
    images: dict[str, str]
    programs: dict[str, Path]
    kubectl: Path
    weed: Path
    bwrap: Path | None


class Event(BaseModel):
    """How far it is; one line on stdout each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str = ""
    ready: bool = False
    detached: bool = False
    error: str = ""
    exit_code: int = 0


def _tell(event: Event) -> None:
    print(event.model_dump_json(exclude_defaults=True), flush=True)  # noqa: T201 - the protocol


def _outlive_starter() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def _release_pipes(log: Path) -> None:
    """Nobody reads the pipes any more; an unforeseen error goes to a log of our own."""
    for path, descriptors in ((Path(os.devnull), (0, 1)), (log, (2,))):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)


def _watch(cluster: Cluster) -> None:
    """Returns never: ends by Interrupted or by ComponentFailed."""
    while True:
        cluster.check()
        time.sleep(WATCH_EVERY_S)


def run(folder: Path, order: Order) -> None:
    """Own a cluster from start to end. Raises Interrupted when asked to end."""
    spec = ClusterSpec(order.nodes, order.gpus, order.images)
    binaries = Binaries(order.programs, order.kubectl, order.weed)
    record = state.Record(
        phase="starting", pid=os.getpid(), nodes=spec.nodes, gpus=spec.gpus, images=order.images
    )
    with state.hold(folder):
        state.write_record(folder, record)
        cluster = Cluster(folder, spec, binaries, order.bwrap)
        try:
            cluster.start(lambda step: _tell(Event(step=step)))
            _tell(Event(ready=True))
            if sys.stdin.readline() != DETACH:
                raise signals.Interrupted(signal.SIGHUP)
            _outlive_starter()
            ready = {"phase": "ready", "env": cluster.env, "processes": cluster.processes()}
            state.write_record(folder, record.model_copy(update=ready))
            _tell(Event(detached=True))
            _release_pipes(folder / "supervisor.log")
            _watch(cluster)
        except LocalError as failed:
            cluster.stop()
            state.write_record(folder, record.model_copy(update={"phase": "failed", "message": str(failed)}))
            raise
        except BaseException:
            cluster.stop()
            state.remove(folder)
            raise


def main() -> None:
    signals.install()
    folder = Path(sys.argv[1])
    try:
        run(folder, Order.model_validate_json(sys.stdin.readline()))
    except signals.Interrupted as asked:
        sys.exit(asked.exit_code)
    except LocalError as failed:
        _tell(Event(error=str(failed), exit_code=failed.exit_code))
        sys.exit(failed.exit_code)


if __name__ == "__main__":
    main()
