"""From labelled images in some format to the interchange format or a packed set, at the training height.

Called by `rectrain-data convert|pack|demo`. Resizing once, here, makes the loader up to six times as fast
on large crops. EXIF orientation is applied once, on the way. All cores work; the order of the samples, and
so the bytes of the set, don't depend on how many there are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_api.errors import InputMissing, UsageError
from rectrain_data import images, labels
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Code, Report
from rectrain_data.labels import LooseSet
from rectrain_data.ordered import map_ordered
from rectrain_data.packed import DEFAULT_SHARD_BYTES, PackedIndex, PackedWriter
from rectrain_data.samples import SampleSet
from rectrain_data.split import DEFAULT_EVAL_FRACTION, EVAL, TRAIN, Split, partition
from rectrain_data.wholeness import whole_folder

Progress = Callable[[int], None]
"""Told the samples just done."""
LABELS = "labels.txt"
_CHUNK = 32


def open_paddle(source: Path) -> LooseSet:
    """PaddleOCR's label file, or the folder that holds it as labels.txt."""
    file = source / LABELS if source.is_dir() else source
    if not file.is_file():
        raise InputMissing(
            f"{file} isn't there: name a label file (lines of image path, tab, text) or a folder that holds "
            f"one as {LABELS}."
        )
    return LooseSet.open(file)


READERS: Final[Mapping[str, Callable[[Path], SampleSet]]] = {"paddle": open_paddle}
"""Formats by name. Each gives a set whose `sample_id` is a relative path."""


@dataclass(frozen=True)
class Converted:
    """One image, ready to be written."""

    index: int
    name: str
    data: bytes
    text: str
    width: int
    height: int


@dataclass(frozen=True)
class PackOptions:
    """How samples become a packed set."""

    height: int | None
    eval_fraction: float = DEFAULT_EVAL_FRACTION
    seed: int = 0
    dictionary: Dictionary | None = None
    shard_bytes: int = DEFAULT_SHARD_BYTES


def read_source(source: Path, reader: str) -> SampleSet:
    """The samples of a source. Raises UsageError, InputMissing, DatasetInvalid."""
    if reader not in READERS:
        raise UsageError(f"There is no reader {reader!r}: use one of {', '.join(READERS)}.")
    return READERS[reader](source)


def to_loose(samples: SampleSet, target: Path, height: int | None, progress: Progress | None = None) -> int:
    """Write images and a label file; returns how many.

    Raises:
        UsageError: the target isn't free.
        DatasetInvalid: an image is missing or unreadable.
    """
    report = Report()
    with whole_folder(target) as folder:

        def rows() -> Iterator[tuple[str, str]]:
            for image in converted(samples, height, report, progress):
                path = folder / image.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image.data)
                yield image.name, image.text

        count = labels.write(folder / LABELS, rows())
        report.raise_if_any()
    return count


def to_packed(
    samples: SampleSet,
    target: Path,
    options: PackOptions,
    held_out: SampleSet | None = None,
    progress: Progress | None = None,
) -> PackedIndex:
    """Write a packed set: training samples, and those held out by hash or given as a set of their own.

    Raises:
        UsageError: the target isn't free.
        DatasetInvalid: an image is missing or unreadable, or the dictionary lacks a character.
    """
    report = Report()
    with PackedWriter(target, shard_bytes=options.shard_bytes) as writer:
        for split, part, indices in _parts(samples, held_out, options):
            for image in converted(part, options.height, report, progress, indices):
                # Two sets may name their images alike; in one packed set a name is unique.
                name = image.name if held_out is None else f"{split}/{image.name}"
                writer.add(split, name, image.data, image.text, width=image.width, height=image.height)
        report.raise_if_any()
        return writer.finish(options.dictionary)


def _parts(
    samples: SampleSet, held_out: SampleSet | None, options: PackOptions
) -> list[tuple[Split, SampleSet, Iterable[int]]]:
    if held_out is not None:
        return [(TRAIN, samples, range(len(samples))), (EVAL, held_out, range(len(held_out)))]
    if not options.eval_fraction:
        return [(TRAIN, samples, range(len(samples)))]
    identities = (samples.sample_id(index) for index in range(len(samples)))
    train, held = partition(identities, eval_fraction=options.eval_fraction, seed=options.seed)
    return [(TRAIN, samples, train), (EVAL, samples, held)]


def converted(
    samples: SampleSet,
    height: int | None,
    report: Report,
    progress: Progress | None = None,
    indices: Iterable[int] | None = None,
) -> Iterator[Converted]:
    """Images at the height, in order, from all cores; those missing or unreadable go into the report."""

    def convert(index: int) -> Converted | tuple[int, Code, str]:
        try:
            name, data, width, rows = images.at_height(
                samples.image_bytes(index), samples.sample_id(index), height
            )
        except InputMissing:
            return index, Code.IMAGE_MISSING, ""
        except images.Unreadable as exc:
            return index, Code.IMAGE_UNREADABLE, str(exc)
        return Converted(index, name, data, samples.label(index), width, rows)

    def convert_chunk(chunk: list[int]) -> list[Converted | tuple[int, Code, str]]:
        return [convert(index) for index in chunk]

    for results in map_ordered(convert_chunk, _chunks(range(len(samples)) if indices is None else indices)):
        for result in results:
            if isinstance(result, Converted):
                yield result
                continue
            index, code, why = result
            place = samples.place(index)
            report.add(code, place.file, place.line, ", ".join(filter(None, (place.detail, why))))
        if progress:
            progress(len(results))


def _chunks(indices: Iterable[int]) -> Iterator[list[int]]:
    chunk: list[int] = []
    for index in indices:
        chunk.append(index)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
