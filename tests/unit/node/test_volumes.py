"""Files of volumes: what is in them, and how they change."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rectrain_local.node import atomic
from rectrain_local.node.api import Api
from rectrain_local.node.atomic import FileEntry, UnsafePath
from rectrain_local.node.env import ConfigError, Sources
from rectrain_local.node.files import TokenKey, VolumeError, files_of, needed_objects, needed_tokens
from rectrain_local.node.volumes import PodVolumes

from .test_env import FACTS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOURCES = Sources({("configmaps", "cm"): {"data": {"a": "1", "b": "2"}}, ("configmaps", "none"): None})


def paths(volume: dict[str, Any]) -> dict[str, tuple[bytes, int]]:
    files = files_of({"name": "v"} | volume, FACTS, SOURCES, {TokenKey("aud", 600): "token"})
    return {path: (entry.data, entry.mode) for path, entry in files.items()}


def test_a_config_map_with_items_and_modes() -> None:
    assert paths({"configMap": {"name": "cm"}}) == {"a": (b"1", 0o644), "b": (b"2", 0o644)}
    items = [{"key": "a", "path": "x/y", "mode": 0o400}]
    assert paths({"configMap": {"name": "cm", "items": items, "defaultMode": 0o600}}) == {
        "x/y": (b"1", 0o400)
    }
    assert paths({"configMap": {"name": "cm", "defaultMode": 0}})["a"][1] == 0


def test_a_projected_volume_joins_its_sources() -> None:
    volume: dict[str, Any] = {
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"configMap": {"name": "cm"}},
                {"configMap": {"name": "none", "optional": True}},
                {"serviceAccountToken": {"audience": "aud", "expirationSeconds": 600, "path": "token"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ],
        }
    }
    assert needed_objects(volume) == {("configmaps", "cm"), ("configmaps", "none")}
    assert needed_tokens(volume) == {TokenKey("aud", 600)}
    found = paths(volume)
    assert {path: data for path, (data, _) in found.items()} == {
        "a": b"1",
        "b": b"2",
        "token": b"token",
        "n": b"p",
    }
    assert {mode for _, mode in found.values()} == {0o440}


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}, "has no key 'z'"),
        ({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../a"}]}}, "leave its volume"),
        ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "clusterTrustBundle is not supported"),
    ],
)
def test_what_cant_be_mounted_is_said(volume: dict[str, Any], words: str) -> None:
    with pytest.raises(VolumeError, match=words):
        paths(volume)


def test_a_folder_changes_as_one(tmp_path: Path) -> None:
    def shows(*names: str) -> None:
        assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..")) == sorted(names)
        assert len([p for p in tmp_path.iterdir() if p.name.startswith("..2026")]) == 1

    first = {"a": FileEntry(b"1", 0o644), "sub/b": FileEntry(b"2", 0o400)}
    assert atomic.write(tmp_path, first, NOW)
    shows("a", "sub")
    assert (tmp_path / "sub/b").read_bytes() == b"2"
    assert not atomic.write(tmp_path, first, NOW + timedelta(seconds=1)), "nothing changed"
    before = (tmp_path / "..data").readlink()
    assert atomic.write(tmp_path, {"a": FileEntry(b"new", 0o600)}, NOW + timedelta(seconds=2))
    assert (tmp_path / "..data").readlink() != before
    shows("a")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert atomic.write(tmp_path, {}, NOW + timedelta(seconds=3))
    shows()


@pytest.mark.parametrize("path", ["", "/etc/x", "a/../../b", "..data/x"])
def test_paths_stay_in_the_volume(path: str) -> None:
    with pytest.raises(UnsafePath):
        atomic.check_path(path)


class FakeApi(Api):
    """Grants tokens that live ten minutes."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.now = NOW

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        expires = (self.now + timedelta(seconds=600)).isoformat()
        return {"status": {"token": f"token-{len(self.asked)}", "expirationTimestamp": expires}}


def pod_volumes(
    tmp_path: Path, *volumes: dict[str, Any], mounts: Any = (), policy: str = "Never"
) -> PodVolumes:
    spec = {
        "volumes": list(volumes),
        "restartPolicy": policy,
        "containers": [{"name": "c", "volumeMounts": list(mounts)}],
        "serviceAccountName": "sa",
    }
    api = FakeApi()
    pod = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}
    made = PodVolumes(api, pod, tmp_path / "v", tmp_path / "shm", tmp_path / "hidden", now=lambda: api.now)
    made.api = api  # type: ignore[attr-defined]
    return made


async def test_a_token_is_fetched_anew_at_four_fifths_of_its_life(tmp_path: Path) -> None:
    source = {"serviceAccountToken": {"audience": "aud", "expirationSeconds": 600, "path": "token"}}
    volumes = pod_volumes(tmp_path, {"name": "t", "projected": {"sources": [source]}})
    api: FakeApi = volumes.api  # type: ignore[attr-defined]
    token = tmp_path / "v" / "t" / "token"
    await volumes.prepare(FACTS)
    assert token.read_text() == "token-1"
    assert api.asked[0]["spec"] == {
        "audiences": ["aud"],
        "expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
    }
    api.now += timedelta(seconds=479)
    await volumes.refresh(FACTS)
    assert token.read_text() == "token-1"
    api.now += timedelta(seconds=1)
    await volumes.refresh(FACTS)
    assert token.read_text() == "token-2"


async def test_a_memory_volume_is_the_containers_own_or_shared(tmp_path: Path) -> None:
    memory = {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    mounts = [{"name": "m", "mountPath": "/dev/shm"}]
    own = pod_volumes(tmp_path, memory, mounts=mounts)
    await own.prepare(FACTS)
    (mount,) = own.mounts({"volumeMounts": mounts}, {})
    assert (mount.source, mount.size_bytes, mount.target) == (None, 2**20, "/dev/shm")
    shared = pod_volumes(tmp_path, memory, mounts=mounts, policy="Always")
    await shared.prepare(FACTS)
    (mount,) = shared.mounts({"volumeMounts": mounts}, {})
    assert mount.source == tmp_path / "shm" / "m"


async def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    volumes = pod_volumes(tmp_path, {"name": "d", "emptyDir": {}})
    await volumes.prepare(FACTS)
    (tmp_path / "v" / "d" / "out").symlink_to("/etc")

    def mount(**more: str) -> Path | None:
        wanted = {"name": "d", "mountPath": "/d"} | more
        return volumes.mounts({"volumeMounts": [wanted]}, {"A": "x"})[0].source

    assert mount(subPath="new/folder") == tmp_path / "v" / "d" / "new" / "folder"
    assert mount(subPathExpr="$(A)/y") == tmp_path / "v" / "d" / "x" / "y"
    with pytest.raises(ConfigError, match="leaves volume"):
        mount(subPath="out/passwd")


async def test_volumes_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    for volume, words in (
        ({"nfs": {}}, "can't mount nfs"),
        ({"hostPath": {"path": str(tmp_path)}}, "node's own state"),
        ({"hostPath": {"path": str(tmp_path / "hidden" / "x")}}, "node's own state"),
        ({"hostPath": {"path": str(tmp_path / "no"), "type": "Directory"}}, "is not a Directory"),
    ):
        with pytest.raises(VolumeError, match=words):
            await pod_volumes(tmp_path, {"name": "v"} | volume).prepare(FACTS)
