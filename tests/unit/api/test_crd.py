"""The rendered CRD: structural, bounded, described, and up to date in the repository."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rectrain_api import crd

ROOT = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
FORBIDDEN = {"$ref", "$defs", "anyOf", "allOf", "title", "const", "propertyNames", "nullable"}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a schema with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


OURS = [(p, n) for p, n in nodes(ROOT) if p.startswith((".spec", ".status"))]


@pytest.mark.parametrize(("path", "node"), OURS, ids=[p for p, _ in OURS])
def test_every_field_is_structural_described_and_bounded(path: str, node: dict[str, Any]) -> None:
    assert not FORBIDDEN & set(node)
    assert node.get("additionalProperties") is not False
    if not path.endswith("[]"):
        assert node.get("description"), "kubectl explain is the reference"
    if node.get("x-kubernetes-int-or-string"):
        assert "type" not in node
        assert "maxLength" in node
        return
    kind = node["type"]
    if kind == "string":
        assert "maxLength" in node or "enum" in node
    if kind == "array":
        assert "maxItems" in node
    if kind == "object" and "additionalProperties" in node:
        assert "maxProperties" in node


def test_defaults_fill_whole_sections() -> None:
    spec = ROOT["properties"]["spec"]["properties"]
    assert {name for name, node in spec.items() if "default" in node} == {
        "training",
        "export",
        "s3",
        "replicas",
        "runPolicy",
    }
    assert all(node["default"] == {} for node in spec.values() if "default" in node)
    assert spec["checkpoint"]["properties"]["keepLast"]["default"] == 3


def test_status_has_no_defaults_and_nothing_required_at_its_top() -> None:
    status = ROOT["properties"]["status"]
    assert "required" not in status
    assert not [p for p, n in nodes(status) if "default" in n]


def test_conditions_merge_by_type() -> None:
    conditions = ROOT["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_columns() -> None:
    columns = crd.crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    names = [c["name"].upper() for c in columns if not c.get("priority")]
    assert names == ["PHASE", "PROGRESS", "EPOCH", "ACC", "LOSS", "ETA", "CKPT-AGE", "AGE"]
    wide = [c["name"].upper() for c in columns if c.get("priority")]
    assert wide == ["PODS", "GPUS", "ATTEMPT", "NODE", "SAMPLES/S"]


def test_columns_point_at_fields_that_exist() -> None:
    paths = {p for p, _ in nodes(ROOT)} | {".metadata.creationTimestamp"}
    for column in crd.crd()["spec"]["versions"][0]["additionalPrinterColumns"]:
        assert column["jsonPath"] in paths


def test_the_file_in_the_repository_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "crd.yaml"
    stale.write_text("old")
    assert crd.main(["--check", str(stale)]) == 1
    assert "make crds" in capsys.readouterr().err
    assert stale.read_text() == "old"
    assert crd.main([str(stale)]) == 0
    assert stale.read_text() == crd.render()
