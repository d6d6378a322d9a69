"""What a set holds, from its index alone: nothing large is read or fetched. Called by `rectrain-data ls`."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rectrain_api.errors import InputMissing
from rectrain_data import dictionary
from rectrain_data.convert import LABELS
from rectrain_data.findings import Report
from rectrain_data.labels import LooseSet
from rectrain_data.packed import DICTIONARY, INDEX, PackedIndex, PackedSet, is_packed, parse_entry, read_index
from rectrain_data.packed.index import lines_name
from rectrain_data.split import Split
from rectrain_data.transfer import Retries, S3Options, Store, open_store

_HEAD_BYTES = 64 << 10
"""Of a split's sample lines: enough for the first few."""


@dataclass(frozen=True)
class Sample:
    """One sample, as far as it is shown."""

    split: str
    name: str
    label: str


@dataclass(frozen=True)
class Listing:
    """One set."""

    place: str
    kind: str
    counts: dict[str, int]
    height: int | None
    characters: int
    max_label_length: int
    shards: int
    total_bytes: int | None
    samples: list[Sample]

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def list_set(place: str, options: S3Options | None, samples: int, retries: Retries | None = None) -> Listing:
    """Describe the set in a folder or S3 prefix, with its first few samples of each split.

    Raises:
        InputMissing: there is no set.
        DatasetInvalid: its index is damaged.
    """
    if place.startswith("s3://"):
        return _remote(open_store(place, options or S3Options.from_environment(), retries), samples)
    folder = Path(place)
    if is_packed(folder):
        return _local(PackedSet.open(folder), samples)
    file = folder / LABELS if folder.is_dir() else folder
    if not file.is_file():
        raise InputMissing(f"{place} is neither a packed set nor a label file: correct the path.")
    return _loose(LooseSet.open(file), samples)


def _remote(store: Store, samples: int) -> Listing:
    data = store.get(INDEX)
    if data is None:
        raise InputMissing(
            f"{store.uri} isn't a packed set (it has no {INDEX}): correct the URI, or upload one with "
            "rectrain-data upload."
        )
    index = read_index(data, store.uri_of(INDEX))
    shown = [sample for split in index.splits for sample in _first_of(store, index, split, samples)]
    report = Report()
    characters = len(
        dictionary.parse(store.get_bytes(DICTIONARY), store.uri_of(DICTIONARY), report).characters
    )
    report.raise_if_any()
    return _of_index(store.uri, index, characters, shown)


def _first_of(store: Store, index: PackedIndex, split: Split, count: int) -> list[Sample]:
    name = lines_name(split)
    data = store.get_range(name, 0, min(_HEAD_BYTES, index.sizes[name]))
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)[:count]
    entries = [parse_entry(line, index, split, store.uri_of(name)) for line in lines]
    return [Sample(split, entry.name, entry.label) for entry in entries]


def _local(found: PackedSet, samples: int) -> Listing:
    shown = []
    for split in found.splits:
        part = PackedSet.open(found.folder, split)
        shown += [Sample(split, part.sample_id(i), part.label(i)) for i in range(min(samples, len(part)))]
    return _of_index(str(found.folder), found.index, len(found.dictionary().characters), shown)


def _of_index(place: str, index: PackedIndex, characters: int, samples: list[Sample]) -> Listing:
    return Listing(
        place=place,
        kind="packed",
        counts={str(split): count for split, count in index.counts.items()},
        height=index.height,
        characters=characters + index.use_space_char,
        max_label_length=index.max_label_length,
        shards=len(index.shards),
        total_bytes=index.total_bytes,
        samples=samples,
    )


def _loose(found: LooseSet, samples: int) -> Listing:
    return Listing(
        place=str(found.file),
        kind="labels",
        counts={"all": len(found)},
        height=None,
        characters=len(dictionary.count_set(found).counts),
        max_label_length=max(len(found.label(i)) for i in range(len(found))),
        shards=0,
        total_bytes=None,
        samples=[Sample("all", found.sample_id(i), found.label(i)) for i in range(min(samples, len(found)))],
    )
