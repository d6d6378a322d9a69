"""How long from a RecTrainingJob to its batch/v1 Job: `python tests/benchmarks/latency.py`.

A real control plane on this machine, no nodes; runs are created at a steady rate, and a watch of our own
notes when each Job is there, after one that warms everybody up. Prints JSON lines {"name", "value", "unit",
"baseline", "ratio"}; the baselines are what Kubeflow's operators took on such a machine (design §8), ratio =
baseline / value: above 1 is better.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rectrain_local.assets.cache import Cache, cache_root
from rectrain_local.assets.makers import default_makers
from rectrain_local.assets.resolve import resolve_binaries
from rectrain_local.controlplane import ControlPlane
from rectrain_local.progress import Progress
from rectrain_operator import paths
from rectrain_operator.client import KubeClient, load_configuration
from rectrain_operator.keys import JobKey, Manifest
from rectrain_operator.limits import WriteLimits
from rectrain_operator.views import SELECTOR, job_key
from rectrain_operator.watch import Watch
from tests.integration.operator.harness import OperatorProcess, install

WARM_UP = "warm-up"
SETTLE_S = 3.0
DEADLINE_S = 300.0


@dataclass(frozen=True)
class Load:
    """So many runs at so many a second."""

    count: int
    per_second: float
    training_operator_s: float
    """Kubeflow training-operator v1.8.1 [s], p99 to its Pod."""
    trainer_s: float
    """Kubeflow Trainer v2.0.0 [s], p99 to its JobSet."""


LOADS = (Load(200, 20, 8.5, 0.016), Load(1000, 50, 78, 28))


class Seen:
    """Notes when each Job was first seen."""

    def __init__(self, count: int) -> None:
        self.at: dict[JobKey, float] = {}
        self.first = asyncio.Event()
        self.all = asyncio.Event()
        self._count = count

    def listed(self, manifests: list[Manifest]) -> None:
        """Those that are there at the start."""
        for manifest in manifests:
            self.changed(manifest)

    def changed(self, manifest: Manifest) -> None:
        """Added or modified."""
        key = job_key(manifest)
        if key is not None:
            self.at.setdefault(key, time.monotonic())
        self.first.set()
        if len(self.at) > self._count:  # with the one that warms up
            self.all.set()

    def deleted(self, manifest: Manifest) -> None:
        """Of no interest."""


def manifest_of(namespace: str, name: str) -> Manifest:
    """A small run."""
    return {
        "apiVersion": "rectrain.dev/v1alpha1",
        "kind": "RecTrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"preset": "svtr_nano"},
            "data": {"train": "s3://bench/data"},
            "checkpoint": {"uri": f"s3://bench/{name}"},
        },
    }


async def measure(kubeconfig: Path, namespace: str, load: Load) -> list[float]:
    """Latencies of all runs of one load [s], sorted."""
    client = KubeClient(await load_configuration(kubeconfig), WriteLimits(time.monotonic, at_once=256))
    seen = Seen(load.count)
    path = paths.collection("Job", namespace)
    watch = Watch(client, kind="Jobs", path=path, selector=SELECTOR, sink=seen, clock=time.monotonic)
    follower = asyncio.create_task(watch.run())
    await watch.synced.wait()
    asked: dict[JobKey, float] = {}

    async def ask(number: int, start: float) -> None:
        await asyncio.sleep(start + number / load.per_second - time.monotonic())
        key = JobKey(namespace, f"r{number:04d}")
        asked[key] = time.monotonic()
        await client.post(paths.runs(namespace), manifest_of(*key))

    await client.post(paths.runs(namespace), manifest_of(namespace, WARM_UP))
    await seen.first.wait()  # a watch of a kind that is new to the API server may be refused for a second
    start = time.monotonic() + SETTLE_S
    await asyncio.gather(*(ask(n, start) for n in range(load.count)))
    with suppress(TimeoutError):
        await asyncio.wait_for(seen.all.wait(), DEADLINE_S)
    now = time.monotonic()
    follower.cancel()
    await client.close()
    return sorted(seen.at.get(key, now) - at for key, at in asked.items())


def cpu_and_memory(pid: int) -> tuple[float, float]:
    """CPU seconds used so far, and resident memory now [MiB]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def emit(name: str, value: float, unit: str, baseline: float | None = None) -> None:
    """One line."""
    ratio = round(baseline / value, 3) if baseline is not None and value else None
    line = {"name": name, "value": round(value, 4), "unit": unit, "baseline": baseline, "ratio": ratio}
    print(json.dumps(line), flush=True)


def bench(cluster: ControlPlane, folder: Path, loads: tuple[Load, ...]) -> None:
    """All loads, one operator process for each."""
    kubeconfig = install(cluster, folder)
    for load in loads:
        namespace = f"bench-{load.count}"
        cluster.kubectl("create", "namespace", namespace)
        place = folder / namespace
        place.mkdir()
        operator = OperatorProcess(kubeconfig, place, "--namespace", namespace).start()
        try:
            cpu_before, _ = cpu_and_memory(operator.pid)
            latencies = asyncio.run(measure(cluster.kubeconfig, namespace, load))
            time.sleep(SETTLE_S)
            cpu_after, memory = cpu_and_memory(operator.pid)
        finally:
            operator.stop()
        name = f"cr_to_job_{load.count}_at_{load.per_second:g}"
        emit(f"{name}_p50", latencies[len(latencies) // 2], "s")
        p99 = latencies[int(len(latencies) * 0.99)]
        emit(f"{name}_p99_vs_training_operator_1.8.1", p99, "s", load.training_operator_s)
        emit(f"{name}_p99_vs_trainer_2.0.0", p99, "s", load.trainer_s)
        emit(f"{name}_operator_cpu", cpu_after - cpu_before, "s")
        emit(f"{name}_operator_rss", memory, "MiB")


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane of our own."""
    binaries = resolve_binaries(Progress(), Cache(cache_root()), default_makers())
    cluster = ControlPlane(folder / "control-plane", binaries)
    print("starting a control plane", file=sys.stderr)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def main() -> None:
    """Measure all loads, or with --quick the smaller one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smaller load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rectrain-bench-") as name, control_plane(Path(name)) as cluster:
        bench(cluster, Path(name), LOADS[:1] if options.quick else LOADS)


if __name__ == "__main__":
    main()
