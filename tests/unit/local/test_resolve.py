"""Where programs come from, in which order, and what a user reads when there is no way."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from rectrain_local.assets.cache import Cache
from rectrain_local.assets.resolve import WayFailed, resolve_programs
from rectrain_local.assets.versions import ETCD, KUBERNETES, PROGRAMS
from rectrain_local.errors import AssetsUnavailable
from rectrain_local.progress import Progress


class Notes(Progress):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Way:
    """A way that makes what it is asked for, or fails."""

    def __init__(self, title: str, failure: str = "") -> None:
        self.title, self.failure = title, failure
        self.asked: list[list[str]] = []

    def make(self, programs: Sequence[str], staging: Path, progress: Progress) -> dict[str, Path]:
        self.asked.append(list(programs))
        if self.failure:
            raise WayFailed(self.failure)
        return {program: program_in(staging, program) for program in programs}


def program_in(folder: Path, name: str, version: str | None = None) -> Path:
    """A program that only knows its version."""
    folder.mkdir(parents=True, exist_ok=True)
    line = f"etcd Version: {ETCD[1:]}" if name == "etcd" else f"Kubernetes {KUBERNETES}"
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version or line}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache on a machine without any of the programs."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return Cache(tmp_path / "cache")


def folders(found: dict[str, Path]) -> set[Path]:
    return {path.parent for path in found.values()}


def test_kubebuilder_assets_come_first(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in PROGRAMS:
        program_in(tmp_path / "assets", program)
        program_in(tmp_path / "path", program)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    assert folders(resolve_programs(cache, [], Notes())) == {tmp_path / "assets"}
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    assert folders(resolve_programs(cache, [], Notes())) == {tmp_path / "path"}


def test_another_version_on_path_is_passed_over_aloud(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in PROGRAMS:
        program_in(tmp_path / "path", program)
    program_in(tmp_path / "path", "kube-apiserver", "Kubernetes v1.34.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    way, notes = Way("made"), Notes()
    found = resolve_programs(cache, [way], notes)
    assert way.asked == [["kube-apiserver"]]
    assert found["kube-apiserver"] == cache.place("kube-apiserver")
    assert found["etcd"] == tmp_path / "path" / "etcd"
    assert "v1.34.1" in notes.lines[0]


def test_ways_are_tried_in_order_and_the_result_is_kept(cache: Cache) -> None:
    first, second = Way("first", failure="no network"), Way("second")
    found = resolve_programs(cache, [first, second], Notes())
    assert first.asked == second.asked == [list(PROGRAMS)]
    assert all(os.access(path, os.X_OK) for path in found.values())
    assert resolve_programs(cache, [], Notes()) == found
    assert not (cache.root / "staging").exists()


def test_without_any_way_one_error_names_all_ways_out(cache: Cache) -> None:
    ways = [Way("official download", "no answer"), Way("build with Go", "no `go` command")]
    with pytest.raises(AssetsUnavailable) as refused:
        resolve_programs(cache, ways, Notes())
    said = str(refused.value)
    for way_out in ("KUBEBUILDER_ASSETS", "PATH", str(cache.root), "MIRROR", "Go toolchain"):
        assert way_out in said
    assert "official download: no answer" in said
    assert "build with Go: no `go` command" in said


def test_an_interrupted_build_leaves_nothing(cache: Cache) -> None:
    class Interrupted(Way):
        def make(self, programs: Sequence[str], staging: Path, progress: Progress) -> dict[str, Path]:
            super().make(programs, staging, progress)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_programs(cache, [Interrupted("made")], Notes())
    assert [cache.find(program) for program in PROGRAMS] == [None] * len(PROGRAMS)
    assert not (cache.root / "staging").exists()


def test_leftovers_of_a_killed_build_are_cleared(cache: Cache) -> None:
    program_in(cache.root / "staging", "etcd", "half")
    found = resolve_programs(cache, [Way("made")], Notes())
    assert "half" not in found["etcd"].read_text()


def test_two_commands_build_once(cache: Cache) -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Way):
        def make(self, programs: Sequence[str], staging: Path, progress: Progress) -> dict[str, Path]:
            inside.set()
            assert go_on.wait(10)
            return super().make(programs, staging, progress)

    class Waiting(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            go_on.set()

    slow, other, notes = Slow("slow"), Way("other"), Waiting()
    first = threading.Thread(target=resolve_programs, args=(cache, [slow], Notes()))
    first.start()
    assert inside.wait(10)
    found = resolve_programs(cache, [other], notes)
    first.join()
    assert set(found) == set(PROGRAMS)
    assert other.asked == []
    assert "waiting" in notes.lines[0]
