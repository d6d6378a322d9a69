"""The children of a run: what the trainer is promised, and what the cluster is promised."""

import json
from typing import Any

import pytest
import yaml

from rectrain_api.exit_codes import OUTCOMES
from rectrain_api.plan import (
    WORK_RESERVE_BYTES,
    DeferredPlan,
    RunPlan,
    epochs_of,
    parse_plan,
    write_plan,
)
from rectrain_api.report import report_audience
from rectrain_api.spec import RecTrainingJob
from rectrain_operator.children import children_of
from tests.integration.operator.harness import ROOT
from tests.unit.operator import make


def built(name: str = "full.yaml", **spec: Any) -> dict[str, Any]:
    """The children of a manifest, by kind and name."""
    manifest = yaml.safe_load((ROOT / "tests/data/manifests" / name).read_text())
    manifest["metadata"] |= {"namespace": "team", "uid": "run-uid"}
    for section, fields in spec.items():
        manifest["spec"].setdefault(section, {}).update(fields)
    job = RecTrainingJob.model_validate(manifest)
    return {
        f"{c['kind']}/{c['metadata']['name']}": c for c in children_of(job, write_plan(job), make.SETTINGS)
    }


def template(children: dict[str, Any]) -> dict[str, Any]:
    """The pod template."""
    (job,) = [c for c in children.values() if c["kind"] == "Job"]
    found: dict[str, Any] = job["spec"]["template"]
    return found


def container(children: dict[str, Any]) -> dict[str, Any]:
    """The trainer."""
    (found,) = template(children)["spec"]["containers"]
    result: dict[str, Any] = found
    return result


def environment(children: dict[str, Any]) -> dict[str, Any]:
    """Its environment: value, or where it comes from."""
    return {
        e["name"]: e.get("value", e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"))
        for e in container(children)["env"]
    }


def test_same_run_same_bytes() -> None:
    assert json.dumps(built()) == json.dumps(built())


def test_names_labels_and_owner() -> None:
    children = built()
    assert list(children) == ["ConfigMap/full-run", "ConfigMap/full-ca", "Service/full", "Job/full"]
    for child in children.values():
        assert child["metadata"]["labels"]["rectrain.dev/job"] == "full"
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "rectrain-operator"
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("run-uid", True, True)


def test_the_run_plan_is_whole() -> None:
    stored = RunPlan.model_validate_json(built()["ConfigMap/full-run"]["data"]["run.json"])
    assert str(stored.identity) == "team/full"
    assert stored.training.batch_size == 64
    assert stored.nodes == 2


def test_a_config_of_paddleocr_comes_to_the_pod_and_the_plan_waits_for_it() -> None:
    env = [{"name": "RECTRAIN_MODEL_CONFIG", "value": "mine"}]
    config = {"configMap": {"name": "models", "key": "c.yml"}}
    children = built(model={"preset": None, "config": config, "overrides": {}}, replicas={"env": env})
    given = [e for e in container(children)["env"] if e["name"] == "RECTRAIN_MODEL_CONFIG"]
    assert given == [
        {
            "name": "RECTRAIN_MODEL_CONFIG",
            "valueFrom": {"configMapKeyRef": {"name": "models", "key": "c.yml"}},
        }
    ]
    written = parse_plan(children["ConfigMap/full-run"]["data"]["run.json"])
    assert isinstance(written, DeferredPlan)
    assert (written.nodes, epochs_of(written.to_json())) == (2, written.deferred.spec.training.epochs)


def test_the_job() -> None:
    spec = built()["Job/full"]["spec"]
    assert {
        k: spec[k] for k in ("completionMode", "completions", "parallelism", "backoffLimit", "suspend")
    } == {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimit": 5,
        "suspend": False,
    }
    assert spec["podReplacementPolicy"] == "Failed"
    assert built(runPolicy={"suspend": True})["Job/full"]["spec"]["suspend"] is True


def test_the_failure_policy_follows_the_table() -> None:
    first, *rules = built()["Job/full"]["spec"]["podFailurePolicy"]["rules"]
    assert first == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    said = {code: r["action"] for r in rules for code in r["onExitCodes"]["values"]}
    assert all(r["onExitCodes"]["containerName"] == "trainer" for r in rules)
    for outcome in OUTCOMES.values():
        assert said.get(outcome.exit_code, "Count") == outcome.policy


def test_what_the_trainer_finds() -> None:
    children = built()
    trainer = container(children)
    assert trainer["name"] == "trainer"
    assert trainer["command"] == ["rectrain-trainer", "run", "--plan", "/etc/rectrain/plan/run.json"]
    assert trainer["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert trainer["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
    assert environment(children) == {
        "FLAGS_use_mkldnn": "1",
        "HOME": "/tmp",
        "RECTRAIN_NAMESPACE": "team",
        "RECTRAIN_NAME": "full",
        "RECTRAIN_WORK_DIR": "/var/lib/rectrain",
        "RECTRAIN_REPORT_URL": "https://reports:8443",
        "RECTRAIN_REPORT_CA": "/etc/rectrain/ca/ca.crt",
        "RECTRAIN_TOKEN_FILE": "/var/run/secrets/rectrain/token",
        "RECTRAIN_JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
        "RECTRAIN_POD_UID": "metadata.uid",
        "RECTRAIN_POD_NAME": "metadata.name",
        "RECTRAIN_NODE": "spec.nodeName",
        "RECTRAIN_RANK": "metadata.labels['batch.kubernetes.io/job-completion-index']",
        "RECTRAIN_PEERS": "full-0.full.team.svc,full-1.full.team.svc",
        "RECTRAIN_POD_IP": "status.podIP",
    }
    assert all("subPath" not in m for m in trainer["volumeMounts"])
    volumes = {v["name"]: v for v in template(children)["spec"]["volumes"]}
    (token,) = volumes["token"]["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == report_audience("run-uid")
    assert volumes["work"] == {
        "name": "work",
        "emptyDir": {"sizeLimit": str(20 * 2**30 + WORK_RESERVE_BYTES)},
    }
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_the_pod_is_restricted() -> None:
    spec = template(built())["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(built())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_replicas_reach_the_pod() -> None:
    pod = template(built())
    spec = pod["spec"]
    assert spec["nodeSelector"] == {"pool": "spot"}
    assert [t["key"] for t in spec["tolerations"]] == ["spot", "node.kubernetes.io/unreachable"]
    assert spec["terminationGracePeriodSeconds"] == 60
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["serviceAccountName"] == "default"
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert pod["metadata"]["labels"]["team"] == "ocr"
    assert pod["metadata"]["annotations"] == {"example.com/note": "a run with everything set"}
    assert container(built())["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"memory": "8Gi"},
    }


def test_gpus_are_requested_and_limited() -> None:
    resources = container(built(replicas={"gpusPerNode": 1, "gpuResource": "amd.com/gpu"}))["resources"]
    assert resources["limits"]["amd.com/gpu"] == resources["requests"]["amd.com/gpu"] == "1"


def test_our_labels_and_environment_win() -> None:
    children = built(
        replicas={
            "labels": {
                "rectrain.dev/job": "stolen",
                "rectrain.dev/job-uid": "stolen",
                "app.kubernetes.io/managed-by": "me",
            },
            "env": [{"name": "RECTRAIN_REPORT_URL", "value": "https://evil"}],
        }
    )
    labels = template(children)["metadata"]["labels"]
    assert labels["rectrain.dev/job"] == "full"
    assert labels["rectrain.dev/job-uid"] == "run-uid"
    assert labels["app.kubernetes.io/managed-by"] == "rectrain-operator"
    names = [e["name"] for e in container(children)["env"]]
    assert names.count("RECTRAIN_REPORT_URL") == 1
    assert environment(children)["RECTRAIN_REPORT_URL"] == "https://reports:8443"


@pytest.mark.parametrize("nodes", [1, 3])
def test_nobody_else_says_who_the_peers_are(nodes: int) -> None:
    names = ("RECTRAIN_RANK", "RECTRAIN_PEERS", "RECTRAIN_POD_IP")
    theirs = [{"name": name, "value": "stolen"} for name in names]
    children = built("minimal.yaml", replicas={"nodes": nodes, "env": theirs})
    found = [e for e in container(children)["env"] if e["name"] in names]
    assert len(found) == (3 if nodes > 1 else 0)
    assert "stolen" not in environment(children).values()


def test_rank_0_decides_among_several_pods() -> None:
    spec = built("minimal.yaml", replicas={"nodes": 3})["Job/minimal"]["spec"]
    assert (spec["completions"], spec["parallelism"]) == (3, 3)
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}


def test_one_pod_has_no_peers() -> None:
    children = built("minimal.yaml")
    spec = children["Job/minimal"]["spec"]
    assert (spec["completions"], spec["parallelism"]) == (1, 1)
    assert "successPolicy" not in spec
    assert {"RECTRAIN_RANK", "RECTRAIN_PEERS", "RECTRAIN_POD_IP"} & set(environment(children)) == set()


def test_peers_have_the_names_that_the_service_gives() -> None:
    children = built("minimal.yaml", replicas={"nodes": 12})
    (service,) = [c for c in children.values() if c["kind"] == "Service"]
    subdomain = template(children)["spec"]["subdomain"]
    assert subdomain == service["metadata"]["name"]
    peers = environment(children)["RECTRAIN_PEERS"].split(",")
    assert peers == [f"minimal-{rank}.{subdomain}.team.svc" for rank in range(12)]


def test_the_smallest_manifest() -> None:
    children = built("minimal.yaml")
    assert container(children)["image"] == "trainer:test"
    assert "envFrom" not in container(children)
    volumes = {v["name"]: v for v in template(children)["spec"]["volumes"]}
    assert volumes["work"] == {"name": "work", "emptyDir": {}}


def test_a_shared_volume_is_mounted() -> None:
    children = built("minimal.yaml", data={"train": "s3://data/set", "cache": {"claimName": "sets"}})
    volumes = {v["name"]: v for v in template(children)["spec"]["volumes"]}
    assert volumes["cache"] == {"name": "cache", "persistentVolumeClaim": {"claimName": "sets"}}
    assert volumes["work"] == {"name": "work", "emptyDir": {}}
    assert {"name": "cache", "mountPath": "/var/cache/rectrain"} in container(children)["volumeMounts"]
    assert environment(children)["RECTRAIN_CACHE_DIR"] == "/var/cache/rectrain"
    without = built("minimal.yaml")
    assert "cache" not in {m["name"] for m in container(without)["volumeMounts"]}
    assert "RECTRAIN_CACHE_DIR" not in environment(without)


@pytest.mark.parametrize("name", ["minimal.yaml", "full.yaml"])
def test_the_service_names_pods_before_they_are_ready(name: str) -> None:
    (service,) = [c for c in built(name).values() if c["kind"] == "Service"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
