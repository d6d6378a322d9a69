"""What the chart renders fits the schemas of the oldest Kubernetes that it allows, and of ours: kubeconform.

The API server of `test_release.py` is of one version, and takes fields that the oldest doesn't know. The
schemas come with the package kubernetes-validate.
"""

import importlib.resources
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rectrain_local.assets.cache import Cache
from rectrain_local.assets.gobuild import GoBuild
from rectrain_local.assets.resolve import resolve_tool
from rectrain_local.assets.versions import KUBERNETES, minor
from rectrain_local.progress import Progress
from tests.chart.conftest import CHART, Helm
from tests.chart.test_templates import HERE, SETS

NEWEST = minor(KUBERNETES)


def oldest() -> str:
    """`v1.31`, of `kubeVersion: '>=1.31.0-0'`."""
    allowed = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    (found,) = re.findall(r"^>=(\d+\.\d+)\.", allowed)
    return f"v{found}"


class Kubeconform:
    """Runs it with the schemas of one version of Kubernetes, which it finds in a folder."""

    def __init__(self, program: Path, schemas: Path) -> None:
        self._program = program
        self._schemas = schemas

    def __call__(self, *paths: Path) -> dict[str, Any]:
        """`resources`: those that don't fit; `summary`: how many do."""
        location = str(self._schemas / "{{ .ResourceKind }}{{ .KindSuffix }}.json")
        argv = [self._program, "-strict", "-summary", "-output", "json", "-schema-location", location, *paths]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))


def made(program: Path, version: str, folder: Path) -> Kubeconform:
    """Their schemas name themselves by an address on the internet; copies without it refer to each other."""
    package = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    for one in (package / f"{version}.0-local-strict").iterdir():
        schema = json.loads(one.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)
        (folder / one.name).write_text(json.dumps(schema))
    return Kubeconform(program, folder)


@pytest.fixture(scope="module")
def program(cache: Cache) -> Path:
    return resolve_tool("kubeconform", cache, [GoBuild()], Progress())


@pytest.fixture(scope="module")
def by_oldest(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Kubeconform:
    return made(program, oldest(), tmp_path_factory.mktemp("oldest"))


@pytest.fixture(scope="module")
def by_newest(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Kubeconform:
    return made(program, NEWEST, tmp_path_factory.mktemp("newest"))


def render(helm: Helm, values: str) -> str:
    path = HERE / "values" / f"{values}.yaml"
    return helm("template", "rectrain-operator", str(CHART), "-n", "ocr", "-f", str(path))


def test_all_sets_fit(helm: Helm, by_oldest: Kubeconform, by_newest: Kubeconform, tmp_path: Path) -> None:
    objects = 0
    for values in SETS:
        text = render(helm, values)
        objects += sum(1 for one in yaml.safe_load_all(text) if one)
        (tmp_path / f"{values}.yaml").write_text(text)
    for kubeconform in (by_oldest, by_newest):
        said = kubeconform(tmp_path)
        assert said["resources"] == []
        assert said["summary"] == {"valid": objects, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.parametrize("helm", ["helm"], indirect=True)
@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        ("serviceAccountName", "serviceAcountName", "Deployment"),
        ("shortNames", "shortNmaes", "CustomResourceDefinition"),
        ("maxLength", "maxLenght", "CustomResourceDefinition"),
    ],
)
def test_a_misspelt_field_is_found(
    helm: Helm, by_newest: Kubeconform, tmp_path: Path, right: str, wrong: str, kind: str
) -> None:
    text = render(helm, "default")
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(f"{right}:", f"{wrong}:"))
    (found,) = (one for one in by_newest(path)["resources"] if one["kind"] == kind)
    assert f"'{wrong}' not allowed" in found["msg"]


def test_a_field_that_came_later_is_found(
    by_oldest: Kubeconform, by_newest: Kubeconform, tmp_path: Path
) -> None:
    spec = {"hostnameOverride": "a", "containers": [{"name": "a", "image": "a"}]}  # of 1.34
    path = tmp_path / "pod.yaml"
    path.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    )
    assert by_newest(path)["resources"] == []
    (found,) = by_oldest(path)["resources"]
    assert "'hostnameOverride' not allowed" in found["msg"]
