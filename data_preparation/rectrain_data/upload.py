"""Puts a set into S3 so that what looks whole there is whole. Called by `rectrain-data upload`.

Files that are there with the same size and sha256 are skipped, so an upload that was cut off goes on. What
makes a set a set (index.json, the label file) goes last, and an older one that differs is removed first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rectrain_api.errors import InputMissing
from rectrain_data.convert import LABELS
from rectrain_data.labels import LooseSet
from rectrain_data.packed import INDEX, PackedSet, is_packed
from rectrain_data.transfer import Store, Upload, sha256_file

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Sending:
    """Files to send, and the one that goes last."""

    files: list[Upload]
    last: Upload
    total_bytes: int


def plan(source: Path, progress: Progress | None = None) -> Sending:
    """What belongs to a set on the disk, checked.

    Raises:
        InputMissing: it isn't a packed set, a label file, or a folder with labels.txt.
        DatasetInvalid: it is damaged.
    """
    if is_packed(source):
        return _packed(source, progress)
    file = source / LABELS if source.is_dir() else source
    if not file.is_file():
        raise InputMissing(
            f"{source} is neither a packed set (it has no {INDEX}) nor a label file: make one with "
            "rectrain-data pack or convert."
        )
    return _loose(LooseSet.open(file))


def send(sending: Sending, store: Store, progress: Progress | None = None) -> int:
    """Send it; returns the bytes that had to be sent."""
    digest = sending.last.sha256 or sha256_file(sending.last.path)
    there = store.head(sending.last.key)
    if there is not None and there.sha256 != digest:
        store.delete([sending.last.key])
    sent = store.upload_all(sending.files, progress=progress)
    return sent + store.upload_all([sending.last], progress=progress)


def _packed(folder: Path, progress: Progress | None) -> Sending:
    whole = PackedSet.open(folder)
    whole.verify(progress)
    index = folder / INDEX
    files = [Upload(folder / f.name, f.name, f.sha256) for f in whole.index.files]
    return Sending(files, Upload(index, INDEX), whole.index.total_bytes + index.stat().st_size)


def _loose(samples: LooseSet) -> Sending:
    files, total = [], samples.file.stat().st_size
    for index in range(len(samples)):
        path = samples.image_path(index)
        if not path.is_file():
            raise InputMissing(
                f"The image of {samples.place(index)} isn't there: add it, or remove the line."
            )
        total += path.stat().st_size
        files.append(Upload(path, samples.sample_id(index)))
    return Sending(files, Upload(samples.file, samples.file.name), total)
