"""What is known of the cluster, in memory: filled by the feed and the watches, read by `observe`.

Nothing here is the truth that a restart would lose: all of it is listed again. Versions never go back, so a
late event can't undo what a write of ours has already answered.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from rectrain_operator.keys import JobKey, Manifest, key_of
from rectrain_operator.views import JobView, PodView, version_of

GONE_KEPT: Final = 128
"""Of a run: all its pods may go at once, and each is to be counted."""


class RunStore:
    """RecTrainingJobs by key, as plain JSON without what the API server keeps for itself."""

    def __init__(self) -> None:
        self._runs: dict[JobKey, Manifest] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[JobKey]:
        return iter(self._runs)

    def get(self, key: JobKey) -> Manifest | None:
        """The newest known version."""
        return self._runs.get(key)

    def put(self, manifest: Manifest) -> bool:
        """Keep a version; False when it is older than, or the same as, what is known."""
        key = key_of(manifest)
        known = self._runs.get(key)
        if known is not None and version_of(known) >= version_of(manifest):
            return False
        metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
        self._runs[key] = {**manifest, "metadata": metadata}
        return True

    def remove(self, key: JobKey, uid: str) -> bool:
        """Forget a deleted run, unless another of that name has taken its place."""
        known = self._runs.get(key)
        if known is None or known["metadata"]["uid"] != uid:
            return False
        del self._runs[key]
        return True


class JobStore:
    """batch/v1 Jobs of ours, by run."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, JobView] = {}

    def get(self, key: JobKey) -> JobView | None:
        """The Job of a run."""
        return self._jobs.get(key)

    def keys(self) -> set[JobKey]:
        """All runs with a Job."""
        return set(self._jobs)

    def put(self, key: JobKey, job: JobView) -> bool:
        """Keep a version; False when it is no newer than what is known."""
        known = self._jobs.get(key)
        if known is not None and known.version >= job.version:
            return False
        self._jobs[key] = job
        return True

    def remove(self, key: JobKey, uid: str) -> bool:
        """Forget a deleted Job."""
        known = self._jobs.get(key)
        if known is None or known.uid != uid:
            return False
        del self._jobs[key]
        return True


class PodStore:
    """Pods of ours, by run and UID; deleted ones stay until they are counted."""

    def __init__(self) -> None:
        self._pods: dict[JobKey, dict[str, PodView]] = defaultdict(dict)

    def of(self, key: JobKey) -> tuple[PodView, ...]:
        """The pods of a run, oldest first."""
        return tuple(sorted(self._pods.get(key, {}).values(), key=lambda p: (p.created, p.version)))

    def present(self) -> set[tuple[JobKey, str]]:
        """Keys and UIDs of all pods that aren't gone."""
        return {(key, uid) for key, pods in self._pods.items() for uid, pod in pods.items() if not pod.gone}

    def put(self, key: JobKey, pod: PodView) -> bool:
        """Keep a version; False when it is no newer than what is known, or the pod is gone."""
        known = self._pods[key].get(pod.uid)
        if known is not None and (known.gone or known.version >= pod.version):
            return False
        self._pods[key][pod.uid] = pod
        return True

    def mark_gone(self, key: JobKey, uid: str, last: PodView | None = None) -> PodView | None:
        """A pod was deleted; `last` is its last state, if the watch gave one."""
        pods = self._pods.get(key, {})
        pod = last or pods.get(uid)
        if pod is None or (uid in pods and pods[uid].gone):
            return None
        pods = self._pods[key]
        pods[uid] = pod.as_gone()
        gone = [p for p in self.of(key) if p.gone]
        for old in gone[:-GONE_KEPT]:
            del pods[old.uid]
        return pods[uid]

    def drop_counted(self, key: JobKey, counted: Iterable[str]) -> None:
        """Forget gone pods that status has counted."""
        pods = self._pods.get(key, {})
        for uid in counted:
            if uid in pods and pods[uid].gone:
                del pods[uid]
        self._tidy(key)

    def forget(self, key: JobKey) -> None:
        """The run is gone: forget its gone pods."""
        pods = self._pods.get(key, {})
        for uid in [u for u, p in pods.items() if p.gone]:
            del pods[uid]
        self._tidy(key)

    def _tidy(self, key: JobKey) -> None:
        if key in self._pods and not self._pods[key]:
            del self._pods[key]
