"""Environment, references and the downward API."""

import base64
from typing import Any

import pytest

from rectrain_local.node.downward import PodFacts, UnknownField, field, resource
from rectrain_local.node.env import ConfigError, Sources, expand, needed, resolve
from rectrain_local.node.quantity import in_units, parse

POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u",
        "labels": {"b": "2", "a": 'q"uote'},
        "annotations": {"x.y/z": "v"},
    },
    "spec": {
        "nodeName": "n",
        "serviceAccountName": "sa",
        "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}}}
        ],
    },
}
FACTS = PodFacts(POD, "127.64.0.1", "127.0.0.1", {"cpu": "2", "memory": "8Gi"})
SOURCES = Sources(
    {
        ("configmaps", "cm"): {"data": {"k": "v"}},
        ("secrets", "s"): {"data": {"k": base64.b64encode(b"hidden").decode()}},
        ("configmaps", "none"): None,
        ("secrets", "raw"): {"data": {"k": base64.b64encode(b"a\0b").decode()}},
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$A", "$A"),
        ("x$(A)y$(A)", "x1y1"),
        ("$$$(A)", "$1"),
        ("$(", "$("),
        ("$()", "$()"),
        ("end$", "end$"),
    ],
)
def test_references(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels", 'a="q\\"uote"\nb="2"'),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['gone']", ""),
        ("metadata.annotations['x.y/z']", "v"),
        ("spec.nodeName", "n"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "127.64.0.1"),
        ("status.podIPs", "127.64.0.1"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_fields(path: str, expected: str) -> None:
    assert field(FACTS, path) == expected


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(UnknownField, match=r"spec\.volumes"):
        field(FACTS, "spec.volumes")


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"resource": "requests.cpu"}, "1"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "1024"),
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "requests.memory"}, "0"),
        ({"resource": "limits.memory", "divisor": "0"}, str(2**30)),
    ],
)
def test_resources(ref: dict[str, str], expected: str) -> None:
    assert resource(FACTS, ref, "c") == expected


@pytest.mark.parametrize(
    ("quantity", "value"), [("1", 1), ("1.5Gi", 1610612736), ("100m", 1), ("2k", 2000), ("1e3", 1000)]
)
def test_quantities(quantity: str, value: int) -> None:
    assert in_units(quantity, "1") == value


def test_a_bad_quantity_is_named() -> None:
    with pytest.raises(ValueError, match="lots"):
        parse("lots")


def test_later_variables_win_and_see_earlier_ones() -> None:
    container = {
        "name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "PATH", "value": "/own:$(PATH)"},
            {"name": "k", "value": "over"},
            {"name": "SEEN", "value": "$(k) $(P_k)"},
            {"name": "EMPTY"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {
                "name": "NOT",
                "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}},
            },
        ],
    }
    assert needed(container) == {("configmaps", "cm"), ("secrets", "s"), ("configmaps", "none")}
    assert resolve(container, {"PATH": "/bin"}, FACTS, SOURCES) == {
        "PATH": "/own:/bin",
        "P_k": "v",
        "k": "over",
        "SEEN": "over v",
        "EMPTY": "",
        "SECRET": "hidden",
    }


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "x"}}, "couldn't find key x in Secret ns/s"),
        ({"secretKeyRef": {"name": "raw", "key": "k"}}, "zero byte"),
        ({"fieldRef": {"fieldPath": "spec.containers"}}, "not a field"),
        ({"fileKeyRef": {"path": "x"}}, "fileKeyRef is not supported"),
    ],
)
def test_what_is_missing_is_said(variable: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        resolve({"name": "c", "env": [{"name": "V", "valueFrom": variable}]}, {}, FACTS, SOURCES)
    with pytest.raises(ConfigError, match="none"):
        resolve({"name": "c", "envFrom": [{"configMapRef": {"name": "none"}}]}, {}, FACTS, SOURCES)
