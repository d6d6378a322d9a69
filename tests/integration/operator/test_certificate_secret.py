"""The certificate in a Secret of a real API server, with rights on that one Secret and no more."""

import asyncio
import base64
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rectrain_local.controlplane import ControlPlane
from rectrain_operator import cert_keeper
from rectrain_operator.cert_keeper import CertificateKeeper
from rectrain_operator.client import KubeClient, load_configuration
from rectrain_operator.limits import WriteLimits
from rectrain_operator.settings import Settings
from tests.integration.operator.conftest import until
from tests.integration.operator.harness import kubeconfig_with_token

SPACE, SECRET, ACCOUNT = "certificates", "certificate", "keeper"
EMPTY = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": SPACE}}
RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get", "patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
]


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> Path:
    """Of an account that may do just what the chart gives."""
    meta = {"name": ACCOUNT, "namespace": SPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": RULES},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        EMPTY,
    ]
    for one in objects:
        control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    token = control_plane.kubectl("-n", SPACE, "create", "token", ACCOUNT).stdout.strip()
    return kubeconfig_with_token(control_plane, token, tmp_path / "kubeconfig")


async def test_filled_missed_and_filled_again(
    control_plane: ControlPlane, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cert_keeper, "CHECK_S", 0.1)
    client = KubeClient(await load_configuration(kubeconfig), WriteLimits(time.monotonic))
    settings = Settings(
        report_url="https://operator.svc:8443",
        report_host="127.0.0.1",
        report_port=8443,
        state_dir=tmp_path / "unused",
        certificate_secret=(SPACE, SECRET),
    )
    keeper = CertificateKeeper(settings, client, instance="test", now=lambda: datetime.now(UTC))

    def read(*arguments: str) -> Any:
        return json.loads(control_plane.kubectl("-n", SPACE, "get", *arguments, "-o", "json").stdout)

    async def filled() -> bool:
        data = read("secret", SECRET).get("data", {})
        return base64.b64decode(data.get("ca.crt", "")).decode() == keeper.certificates.ca_pem

    async def told() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = read("events", "--field-selector=reason=CertificateUnkept")["items"]
        return events

    await keeper.first()
    authority = keeper.certificates.ca_pem
    assert authority
    assert await filled()
    running = asyncio.create_task(keeper.run())
    try:
        control_plane.kubectl("-n", SPACE, "delete", "secret", SECRET)
        event = (await until("an Event", told))[0]
        assert event["involvedObject"]["kind"] == "Secret"
        assert f"The Secret {SPACE}/{SECRET} is gone" in event["message"]
        control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(EMPTY))
        await until("the Secret filled", filled)
        assert keeper.certificates.ca_pem == authority
        assert len(await told()) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.close()
        control_plane.kubectl("delete", "namespace", SPACE, "--wait=false")
    assert not (tmp_path / "unused").exists()
