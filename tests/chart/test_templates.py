"""What the chart renders: compared with snapshots, by both versions of helm.

After a wanted change: `RECTRAIN_SNAPSHOTS=write pytest tests/chart/test_templates.py`; read the difference.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, Helm

HERE = Path(__file__).parent
SETS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))


def rendered(helm: Helm, values: str) -> list[dict[str, Any]]:
    """Every object but the CRD, which has a test of its own."""
    text = helm(
        "template",
        "rectrain-operator",
        str(CHART),
        "-n",
        "ocr",
        "-f",
        str(HERE / "values" / f"{values}.yaml"),
    )
    return [one for one in yaml.safe_load_all(text) if one and one["kind"] != "CustomResourceDefinition"]


def test_lint(helm: Helm) -> None:
    helm("lint", "--strict", str(CHART))


def test_there_are_six_sets() -> None:
    assert len(SETS) == 6


@pytest.mark.parametrize("values", SETS)
def test_snapshot(helm: Helm, values: str) -> None:
    found = sorted(rendered(helm, values), key=lambda one: (one["kind"], one["metadata"]["name"], str(one)))
    text = yaml.safe_dump_all(found, sort_keys=True)
    kept = HERE / "snapshots" / f"{values}.yaml"
    if os.environ.get("RECTRAIN_SNAPSHOTS") == "write":
        kept.write_text(text)
    assert text == kept.read_text(), "see the head of this file"


def test_the_crd_is_installed_and_kept_or_not_at_all(helm: Helm) -> None:
    text = helm("template", "r", str(CHART), "--show-only", "templates/crd.yaml")
    (document,) = yaml.safe_load_all(text)
    assert document["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "CustomResourceDefinition" not in helm("template", "r", str(CHART), "--set", "crds.install=false")


def test_rights_are_the_least(helm: Helm) -> None:
    for one in rendered(helm, "default") + rendered(helm, "namespaced"):
        for rule in one.get("rules", []):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] == ["rectrain-operator-certificate"]
                assert rule["verbs"] == ["get", "update", "patch"]


def test_named_namespaces_get_rights_and_the_cluster_tokenreviews_alone(helm: Helm) -> None:
    objects = rendered(helm, "namespaced")
    (everywhere,) = (one for one in objects if one["kind"] == "ClusterRole")
    assert [rule["resources"] for rule in everywhere["rules"]] == [["tokenreviews"]]
    places = {one["metadata"]["namespace"] for one in objects if one["kind"] == "Role"}
    assert places == {"training", "research", "ocr"}


@pytest.mark.parametrize(
    ("setting", "path", "word"),
    [
        ("imag.tag=1", "''", "imag"),
        ("image.tagg=1", "'/image'", "tagg"),
        ("image.pullPolicy=Sometimes", "'/image/pullPolicy'", "Always"),
        ("watchNamespaces[0]=Team_A", "'/watchNamespaces/0'", "Team_A"),
        ("watchNamespaces=team", "'/watchNamespaces'", "array"),
        ("resources.limits.memory=5 GB", "'/resources/limits/memory'", "5 GB"),
        ("tolerations[0].keyy=a", "'/tolerations/0'", "keyy"),
        ("debug=yes", "'/debug'", "boolean"),
        ("extraEnv[0].value=a", "'/extraEnv/0'", "name"),
        ("crds.instal=false", "'/crds'", "instal"),
    ],
)
def test_a_wrong_value_is_an_error_naming_its_path(helm: Helm, setting: str, path: str, word: str) -> None:
    done = helm.tried("template", "r", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert f"at {path}" in done.stderr
    assert word in done.stderr


def test_a_chart_above_may_set_global(helm: Helm) -> None:
    helm("template", "r", str(CHART), "--set", "global.region=x")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("ocr", "ocr-rectrain-operator"),
        ("rectrain-operator", "rectrain-operator"),
        ("a" * 53, "a" * 52),
    ],
)
def test_names_fit(helm: Helm, release: str, name: str) -> None:
    text = helm("template", release, str(CHART), "--show-only", "templates/service.yaml")
    assert yaml.safe_load(text)["metadata"]["name"] == name
