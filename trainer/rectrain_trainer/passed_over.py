"""Lines of a label file that are no samples: faulty ones, and those whose image isn't there.

Called by the stage stage, which fetches the images of the others. `data.validation` decides: Strict refuses
the first such line, Warn and Off pass over them. Where labels are looked at, a missing image is left for the
check to find, so that it is counted among all that is wrong with images.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from rectrain_api.errors import InputMissing
from rectrain_data import labels
from rectrain_data.findings import Code, Finding, Report
from rectrain_data.labels import Label
from rectrain_data.lines import LineFile
from rectrain_data.transfer import Store

Validation = Literal["Strict", "Warn", "Off"]


@dataclass(frozen=True)
class PassedOver:
    """Of the label files of a set."""

    bits: tuple[bytes, ...] = ()
    """Of each file one for each line, as `LooseSet` takes them. Empty: no line is passed over."""
    count: int = 0
    findings: list[Finding] = field(default_factory=list)
    """Why, with paths on this disk."""


def read(file: Path, uri: str, store: Store, validation: Validation) -> tuple[dict[str, int], PassedOver]:
    """Images to fetch, with the sizes that S3 lists, and the lines that are passed over.

    Raises:
        DatasetInvalid: a line is faulty, and validation Strict.
        InputMissing: an image isn't there, and validation Strict.
    """
    report = Report()
    rows = list(labels.read(file, report))
    if validation == "Strict":
        report.raise_if_any()
    listed = {o.key: o.size for o in store.list_objects()}
    missing = [(file, row) for row in rows if row.path not in listed]
    if missing and validation == "Strict":
        first = missing[0][1]
        place = f"{store.uri_of(first.path)} ({uri} line {first.line})"
        raise _not_there(place, len(missing), "upload it beside the label file, or remove its line")
    _remove_stale(missing)
    sizes = {row.path: listed[row.path] for row in rows if row.path in listed}
    return sizes, _others([(file, rows)], missing, report, validation)


def read_local(
    folder: Path, files: Iterable[Path], validation: Validation, *, anywhere: bool = False
) -> PassedOver:
    """The lines that are passed over of label files of this machine, whose paths begin at `folder`.

    Raises as `read`.
    """
    report = Report()
    rows = [(file, list(labels.read(file, report, anywhere=anywhere))) for file in files]
    if validation == "Strict":
        report.raise_if_any()
    if validation == "Warn":  # the check finds them: the files needn't be asked for twice
        return _others(rows, [], report, validation)
    missing = [(f, row) for f, own in rows for row in own if not (folder / row.path).is_file()]
    if missing and validation == "Strict":
        file, first = missing[0]
        place = f"{folder / first.path} ({file} line {first.line})"
        mend = "add it, remove its line, or correct the folder that the paths begin at"
        raise _not_there(place, len(missing), mend)
    return _others(rows, missing, report, validation)


def _not_there(place: str, count: int, mend: str) -> InputMissing:
    many = f", nor are {count - 1} more" if count > 1 else ""
    return InputMissing(f"The image {place} isn't there{many}: {mend}.")


def _remove_stale(missing: Iterable[tuple[Path, Label]]) -> None:
    """What an earlier pod left on this disk isn't there for another one."""
    for file, row in missing:
        with contextlib.suppress(OSError):
            (file.parent / row.path).unlink(missing_ok=True)


def _others(
    rows: Iterable[tuple[Path, list[Label]]],
    missing: Sequence[tuple[Path, Label]],
    report: Report,
    validation: Validation,
) -> PassedOver:
    """All but `rows`, the good lines of each file; where nobody looks, those of `missing` images are none.

    A file may be there twice, so that it counts twice.
    """
    gone: set[tuple[Path, int]] = set()
    if validation == "Off":
        for file, row in missing:
            report.add(Code.IMAGE_MISSING, str(file), row.line, row.path)
            gone.add((file, row.line))
    bits, count = [], 0
    for file, own in rows:
        flags = np.ones(len(LineFile(file)), dtype=np.uint8)
        flags[[row.line - 1 for row in own if (file, row.line) not in gone]] = 0
        count += int(flags.sum())
        bits.append(np.packbits(flags).tobytes() if flags.any() else b"")
    return PassedOver(tuple(bits) if count else (), count, report.findings)
