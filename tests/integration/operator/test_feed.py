"""A kopf watcher that died unseen is noticed and started anew (kopf #1276)."""

import asyncio
import os
import signal
import time
from pathlib import Path

from rectrain_local.controlplane import ControlPlane
from rectrain_operator import paths
from rectrain_operator.app import Operator
from rectrain_operator.client import KubeClient, load_configuration
from rectrain_operator.keys import JobKey
from rectrain_operator.limits import WriteLimits
from rectrain_operator.settings import Settings
from tests.integration.operator.conftest import until
from tests.integration.operator.harness import free_port, load

NAMESPACE = "feed-tests"


async def test_a_dead_feed_starts_anew(
    control_plane: ControlPlane, rights: Path, client: KubeClient, tmp_path: Path
) -> None:
    control_plane.kubectl("create", "namespace", NAMESPACE)
    port = free_port()
    settings = Settings(
        report_url=f"https://127.0.0.1:{port}",
        report_host="127.0.0.1",
        report_port=port,
        state_dir=tmp_path,
        namespaces=(NAMESPACE,),
        kubeconfig=rights,
        health_host="127.0.0.1",
        health_port=free_port(),
    )
    own = KubeClient(await load_configuration(rights), WriteLimits(time.monotonic))
    operator = Operator(settings, own)
    running = asyncio.create_task(operator.run())
    try:
        await until("listed", lambda: _true(operator._resync.listed.is_set()))
        for number in range(2):
            key = JobKey(NAMESPACE, f"run-{number}")
            manifest = load("minimal.yaml")
            manifest["metadata"]["name"] = key.name
            manifest["spec"]["replicas"] = {"nodeSelector": {"rectrain.dev/no": "node"}}
            await client.post(paths.runs(NAMESPACE), manifest)
            await until("job name", lambda key=key: _has_job(client, key))  # type: ignore[misc]
            operator._monitor.dead.set()
            await until("started anew", lambda: _true(not operator._monitor.dead.is_set()))
        assert operator._health.ills() == []
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)
        await own.close()
        control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


async def _true(value: bool) -> bool:
    return value


async def _has_job(client: KubeClient, key: JobKey) -> bool:
    return "jobName" in ((await client.get(paths.run(key))).get("status") or {})
