"""A kopf watcher that died unseen is noticed and started anew (kopf #1276)."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from rectrain_local.controlplane import ControlPlane
from rectrain_local.ports import free_ports
from rectrain_operator import paths
from rectrain_operator.app import Operator
from rectrain_operator.client import KubeClient, load_configuration
from rectrain_operator.feed import run_feed
from rectrain_operator.keys import JobKey
from rectrain_operator.limits import WriteLimits
from rectrain_operator.settings import Settings
from tests.integration.operator.conftest import until
from tests.integration.operator.harness import load

NAMESPACE = "feed-tests"


def settings_of(rights: Path, state: Path) -> Settings:
    port, health_port = free_ports(2)
    return Settings(
        report_url=f"https://127.0.0.1:{port}",
        report_host="127.0.0.1",
        report_port=port,
        state_dir=state,
        namespaces=(NAMESPACE,),
        kubeconfig=rights,
        health_host="127.0.0.1",
        health_port=health_port,
    )


async def test_a_user_without_a_name_can_run_it(
    rights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's user isn't in its /etc/passwd; kopf would look it up."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr("getpass.getuser", nobody)
    feed = asyncio.create_task(run_feed(settings_of(rights, tmp_path), lambda *_: None))
    done, _ = await asyncio.wait({feed}, timeout=3)
    feed.cancel()
    assert not done, feed


async def test_a_feed_that_ends_at_once_makes_the_operator_unready(
    rights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("no way")

    monkeypatch.setattr("rectrain_operator.app.run_feed", fails)
    own = KubeClient(await load_configuration(rights), WriteLimits(time.monotonic))
    operator = Operator(settings_of(rights, tmp_path), own)
    running = asyncio.create_task(operator.run())
    said = "the watch of RecTrainingJobs ends at once: RuntimeError: no way"
    try:
        await until("unready", lambda: _true(said in operator._health.waits()))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)
        await own.close()


async def test_a_dead_feed_starts_anew(
    control_plane: ControlPlane, rights: Path, client: KubeClient, tmp_path: Path
) -> None:
    control_plane.kubectl("create", "namespace", NAMESPACE)
    own = KubeClient(await load_configuration(rights), WriteLimits(time.monotonic))
    operator = Operator(settings_of(rights, tmp_path), own)
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
