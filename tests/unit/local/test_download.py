"""The official download: checked, and quick to give up."""

import hashlib
import http.server
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rectrain_local.assets import download
from rectrain_local.assets.download import Download, checksum_in, source_of
from rectrain_local.assets.resolve import WayFailed
from rectrain_local.assets.versions import ETCD, KUBERNETES, architecture
from rectrain_local.progress import Progress

API_SERVER = b"#!/bin/sh\necho Kubernetes\n" * 1000


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served over HTTP as both mirrors."""
    root = tmp_path / "mirror"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    for variable in (download.KUBERNETES_MIRROR, download.ETCD_MIRROR):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}/")
    yield root
    server.shutdown()
    thread.join()
    server.server_close()


def publish(root: Path, place: str, content: bytes, checksum: str | None = None) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_name(path.name + ".sha256").write_text(checksum or hashlib.sha256(content).hexdigest())


def place_of(program: str) -> str:
    return f"{KUBERNETES}/bin/linux/{architecture()}/{program}"


def test_a_program_is_fetched_and_checked(mirror: Path, tmp_path: Path) -> None:
    publish(mirror, place_of("kube-apiserver"), API_SERVER)
    made = Download().make(["kube-apiserver"], tmp_path, Progress())
    assert made["kube-apiserver"].read_bytes() == API_SERVER


def test_etcd_is_taken_out_of_its_archive(mirror: Path, tmp_path: Path) -> None:
    name = f"etcd-{ETCD}-linux-{architecture()}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file, content in (("README.md", b"read"), ("etcd", b"program"), ("etcdctl", b"other")):
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    folder = mirror / ETCD
    folder.mkdir()
    (folder / f"{name}.tar.gz").write_bytes(packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    sums = f"{0:064}  etcd-darwin.zip\n{digest}  {name}.tar.gz\n"
    (folder / "SHA256SUMS").write_text(sums)
    staging = tmp_path / "staging"
    staging.mkdir()
    made = Download().make(["etcd"], staging, Progress())
    assert made["etcd"].read_bytes() == b"program"
    assert not (staging / "README.md").exists()


def test_a_wrong_checksum_is_refused(mirror: Path, tmp_path: Path) -> None:
    publish(mirror, place_of("kube-apiserver"), API_SERVER, checksum="0" * 64)
    with pytest.raises(WayFailed, match="published is 0000"):
        Download().make(["kube-apiserver"], tmp_path, Progress())


def test_a_missing_file_is_named(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(WayFailed, match=r"kube-scheduler.sha256: HTTP 404"):
        Download().make(["kube-scheduler"], tmp_path, Progress())


def test_a_silent_host_is_given_up_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ANSWER_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(download.KUBERNETES_MIRROR, f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(WayFailed, match="didn't answer"):
            Download().make(["kube-apiserver"], tmp_path, Progress())
        assert time.monotonic() - began < 5


def test_without_mirrors_the_publishers_are_asked() -> None:
    source = source_of("kube-scheduler", {})
    assert source.url == f"https://dl.k8s.io/{KUBERNETES}/bin/linux/{architecture()}/kube-scheduler"
    assert source.sums_url == source.url + ".sha256"
    assert source_of("etcd", {}).sums_url.endswith(f"/etcd/releases/download/{ETCD}/SHA256SUMS")


def test_a_checksum_list_without_the_file_is_no_checksum() -> None:
    with pytest.raises(WayFailed, match="don't name"):
        checksum_in("abc  other.tar.gz\n", "etcd.tar.gz")
