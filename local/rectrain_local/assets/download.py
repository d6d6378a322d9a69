"""The official binaries: Kubernetes' from dl.k8s.io, etcd's from its GitHub releases, or mirrors of both.

Called by `resolve`. Each file is checked against the SHA-256 that the publisher puts beside it, before
anything runs it; fetched by HTTPS that is the publisher's word, from a plain-HTTP mirror it only shows that
the file is whole. A machine without internet has to notice so within seconds: the next way is a long build.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from rectrain_local.assets.resolve import WayFailed
from rectrain_local.assets.versions import ETCD, KUBERNETES, architecture
from rectrain_local.progress import Progress

KUBERNETES_MIRROR: Final = "RECTRAIN_KUBERNETES_MIRROR"
ETCD_MIRROR: Final = "RECTRAIN_ETCD_MIRROR"
OFFICIAL: Final[Mapping[str, str]] = {
    KUBERNETES_MIRROR: "https://dl.k8s.io",
    ETCD_MIRROR: "https://github.com/etcd-io/etcd/releases/download",
}
ANSWER_WITHIN_S: Final = 5.0
STALLED_AFTER_S: Final = 30.0
TRIES: Final = 3
BLOCK: Final = 1 << 18
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Source:
    """One file to fetch, and the file that holds its checksum."""

    url: str
    sums_url: str

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


def source_of(program: str, environ: Mapping[str, str]) -> Source:
    """Where PROGRAM of the pinned version is published."""

    def base(variable: str) -> str:
        return environ.get(variable, "").rstrip("/") or OFFICIAL[variable]

    if program == "etcd":
        folder = f"{base(ETCD_MIRROR)}/{ETCD}"
        return Source(f"{folder}/etcd-{ETCD}-linux-{architecture()}.tar.gz", f"{folder}/SHA256SUMS")
    url = f"{base(KUBERNETES_MIRROR)}/{KUBERNETES}/bin/linux/{architecture()}/{program}"
    return Source(url, f"{url}.sha256")


def checksum_in(sums: str, file: str) -> str:
    """The SHA-256 of `file`: from lines `SUM  FILE`, or a file that holds nothing but the sum."""
    for line in sums.splitlines():
        words = line.split()
        if len(words) == 1 or (len(words) == 2 and words[1].lstrip("*") == file):
            return words[0].lower()
    raise WayFailed(f"the published checksums don't name {file}")


class Download:
    """Fetches programs that others have built."""

    title = "official download"

    def make(self, programs: Sequence[str], staging: Path, progress: Progress) -> dict[str, Path]:
        timeout = httpx.Timeout(STALLED_AFTER_S, connect=ANSWER_WITHIN_S)
        with httpx.Client(follow_redirects=True, timeout=timeout) as client:
            return {program: self._one(client, program, staging, progress) for program in programs}

    def _one(self, client: httpx.Client, program: str, staging: Path, progress: Progress) -> Path:
        source = source_of(program, os.environ)
        expected = checksum_in(_fetch_text(client, source.sums_url), source.file)
        fetched = staging / source.file
        _fetch_file(client, source.url, fetched, progress)
        with fetched.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != expected:
            raise WayFailed(f"{source.url} has SHA-256 {actual}, published is {expected}")
        return _unpack(fetched, program) if source.file.endswith(".tar.gz") else fetched


def _fetch_text(client: httpx.Client, url: str) -> str:
    """A small file. In a thread, because looking up a name has no deadline of its own."""
    answers: list[str | httpx.HTTPError] = []

    def fetch() -> None:
        try:
            answers.append(client.get(url).raise_for_status().text)
        except httpx.HTTPError as failed:
            answers.append(failed)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    if not answers:
        raise WayFailed(f"{url} didn't answer within {ANSWER_WITHIN_S:.0f} s")
    if isinstance(answers[0], httpx.HTTPError):
        raise WayFailed(f"{url}: {_sentence(answers[0])}")
    return answers[0]


def _sentence(failed: httpx.HTTPError) -> str:
    if isinstance(failed, httpx.HTTPStatusError):
        return f"HTTP {failed.response.status_code}"
    return str(failed) or type(failed).__name__


def _fetch_file(client: httpx.Client, url: str, target: Path, progress: Progress) -> None:
    """Stream a file to disk; a broken connection is tried again, from the start."""
    for attempt in range(1, TRIES + 1):
        try:
            with client.stream("GET", url) as answer:
                answer.raise_for_status()
                _save(answer, target, progress)
        except httpx.TransportError as failed:
            if attempt == TRIES:
                raise WayFailed(f"{url}: {_sentence(failed)}") from failed
        except httpx.HTTPError as failed:
            raise WayFailed(f"{url}: {_sentence(failed)}") from failed
        else:
            return


def _save(answer: httpx.Response, target: Path, progress: Progress) -> None:
    length = answer.headers.get("content-length")
    total = int(length) // MIB if length else None
    with target.open("wb") as file, progress.work(f"downloading {target.name}", total, "MiB") as advance:
        for block in answer.iter_bytes(BLOCK):
            file.write(block)
            advance(file.tell() // MIB)


def _unpack(archive: Path, program: str) -> Path:
    """The one program of an archive; nothing else of it touches the disk."""
    target = archive.with_name(program)
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if Path(member.name).name == program else None
            if stream is not None:
                with stream, target.open("wb") as file:
                    while block := stream.read(BLOCK):
                        file.write(block)
                return target
    raise WayFailed(f"{archive.name} holds no {program}")
