"""Everything known of the cluster, and who is told when it changes. The sinks of feed and watches.

Made once by `app`; `observe` reads it, `reconcile` and `report_server` write back what the API server
answered, so that a decision never waits for a watch to echo our own write.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rectrain_operator.keys import JobKey, Manifest, key_of
from rectrain_operator.metrics import RUNS
from rectrain_operator.queue import WorkQueue
from rectrain_operator.reports import ReportStore
from rectrain_operator.store import JobStore, PodStore, RunStore
from rectrain_operator.views import PodView, job_key, job_view, pod_view

SETTLE_S: Final = 0.1
"""Changes of Jobs and pods come in bursts: one look at the end of it is enough, and new runs go first."""
PRESENT_FOR_S: Final = 600.0
"""After so long the small children of a live run are asked for again: somebody may have deleted one."""


@dataclass
class Cluster:
    """See the module."""

    queue: WorkQueue[JobKey]
    clock: Callable[[], float] = time.monotonic
    runs: RunStore = field(default_factory=RunStore)
    jobs: JobStore = field(default_factory=JobStore)
    pods: PodStore = field(default_factory=PodStore)
    pod_gone: Callable[[PodView], None] = lambda _: None
    """Told of deleted pods: their tokens are worth nothing any more."""

    def __post_init__(self) -> None:
        self.reports = ReportStore(self.clock)
        self._present: dict[str, tuple[float, str, frozenset[str]]] = {}
        self._plan_epochs: dict[str, int] = {}

    def run_changed(self, manifest: Manifest) -> None:
        """A RecTrainingJob was seen."""
        known = self.runs.get(key_of(manifest))
        if self.runs.put(manifest):
            if known is not None and known["metadata"]["uid"] != manifest["metadata"]["uid"]:
                self._forget(known)  # its successor was seen first: its own end will find nothing to forget
            RUNS.set(len(self.runs))
            new = "jobName" not in (manifest.get("status") or {})
            self.queue.add(key_of(manifest), urgent=new)

    def run_deleted(self, manifest: Manifest) -> None:
        """A RecTrainingJob is gone; its children go by garbage collection."""
        key = key_of(manifest)
        if self.runs.remove(key, manifest["metadata"]["uid"]):
            RUNS.set(len(self.runs))
            self._forget(manifest)

    def _forget(self, run: Manifest) -> None:
        key = key_of(run)
        self.reports.forget(key)
        self.pods.forget(key)
        self.doubt(run["metadata"]["uid"])

    def present(self, uid: str, ca_pem: str) -> frozenset[str]:
        """Small children of a run known to be there, made under this CA."""
        known_at, known_ca, names = self._present.get(uid, (0.0, "", frozenset()))
        if known_ca != ca_pem or self.clock() - known_at > PRESENT_FOR_S:
            return frozenset()
        return names

    def made(self, uid: str, ca_pem: str, names: frozenset[str]) -> None:
        """Children were made, or found to be ours."""
        self._present[uid] = (self.clock(), ca_pem, self.present(uid, ca_pem) | names)

    def doubt(self, uid: str) -> None:
        """A child isn't as it was known: all are to be looked for again."""
        self._present.pop(uid, None)
        self._plan_epochs.pop(uid, None)

    def plan_epochs(self, uid: str) -> int | None:
        """Epochs of a run's plan, as last read or written."""
        return self._plan_epochs.get(uid)

    def planned(self, uid: str, epochs: int) -> None:
        """The run plan was made, read or changed."""
        self._plan_epochs[uid] = epochs


class JobSink:
    """Takes what a watch of Jobs sees."""

    def __init__(self, cluster: Cluster, namespace: str | None) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def listed(self, manifests: list[Manifest]) -> None:
        """Jobs that aren't listed any more were deleted while nobody looked."""
        seen = {job_key(m) for m in manifests}
        for key in self._cluster.jobs.keys() - seen:
            known = self._cluster.jobs.get(key)
            if known is not None and self._namespace in (None, key.namespace):
                self._cluster.jobs.remove(key, known.uid)
                self._cluster.queue.add(key)
        for manifest in manifests:
            self.changed(manifest)

    def changed(self, manifest: Manifest) -> None:
        """Added or modified."""
        key = job_key(manifest)
        if key is not None and self._cluster.jobs.put(key, job_view(manifest)):
            self._cluster.queue.add_after(key, SETTLE_S)

    def deleted(self, manifest: Manifest) -> None:
        """Gone."""
        key = job_key(manifest)
        if key is not None and self._cluster.jobs.remove(key, manifest["metadata"]["uid"]):
            self._cluster.queue.add(key)


class PodSink:
    """Takes what a watch of pods sees."""

    def __init__(self, cluster: Cluster, namespace: str | None) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def listed(self, manifests: list[Manifest]) -> None:
        """Pods that aren't listed any more were deleted while nobody looked."""
        seen = {m["metadata"]["uid"] for m in manifests}
        for key, uid in self._cluster.pods.present():
            if uid not in seen and self._namespace in (None, key.namespace):
                self._gone(key, uid, None)
        for manifest in manifests:
            self.changed(manifest)

    def changed(self, manifest: Manifest) -> None:
        """Added or modified."""
        key = job_key(manifest)
        if key is not None and self._cluster.pods.put(key, pod_view(manifest)):
            self._cluster.queue.add_after(key, SETTLE_S)

    def deleted(self, manifest: Manifest) -> None:
        """Gone; what the watch gives is its last state."""
        key = job_key(manifest)
        if key is not None:
            self._gone(key, manifest["metadata"]["uid"], pod_view(manifest))

    def _gone(self, key: JobKey, uid: str, last: PodView | None) -> None:
        pod = self._cluster.pods.mark_gone(key, uid, last)
        if pod is not None:
            self._cluster.pod_gone(pod)
            self._cluster.queue.add_after(key, SETTLE_S)
