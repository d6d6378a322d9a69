"""`index.json` and the sample lines of a packed set: what they hold, and what is refused in them. Pure.

A packed set is a folder, or an S3 prefix:

    index.json            this; written last, with size and sha256 of every other file
    dictionary.txt        the characters, one a line
    index/<split>.jsonl   one line a sample: where it lies in which shard, its label, size and sha256
    shards/NNNNN.tar      the images, ordinary members of an ordinary tar; a shard holds one split

It may come from anywhere, so names are matched whole against a pattern and every number against the
sizes: nothing in it can name a file outside, or bytes outside a shard.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rectrain_api.errors import DatasetInvalid
from rectrain_data.labels import is_inside
from rectrain_data.split import Split

VERSION: Literal[1] = 1
INDEX = "index.json"
DICTIONARY = "dictionary.txt"
_FILE_PATTERN = r"^(shards/\d{5,8}\.tar|index/(train|eval)\.jsonl|dictionary\.txt)$"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class StoredFile(_Model):
    """One file of the set, by its name under the set's folder."""

    name: Annotated[str, StringConstraints(pattern=_FILE_PATTERN)]
    size: Count
    sha256: Sha256


class Shard(_Model):
    """One tar, of one split. Samples refer to it by its place in the list."""

    name: Annotated[str, StringConstraints(pattern=r"^shards/\d{5,8}\.tar$")]
    split: Split
    samples: Count


class PackedIndex(_Model):
    """index.json."""

    format: Literal["rectrain-packed"] = "rectrain-packed"
    version: int = VERSION
    height: Annotated[int, Field(ge=1)] | None
    """Of all images [px]; None when they differ."""
    max_label_length: Count
    """Of the longest label [code points]."""
    use_space_char: bool
    """Whether a label holds a space; it isn't in dictionary.txt."""
    counts: dict[Split, Count]
    """Samples of each split."""
    shards: list[Shard]
    files: list[StoredFile]

    @property
    def splits(self) -> list[Split]:
        """The splits that hold samples."""
        return [split for split, count in self.counts.items() if count]

    @property
    def total_bytes(self) -> int:
        """Of all files but index.json."""
        return sum(file.size for file in self.files)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {file.name: file.size for file in self.files}

    def files_of(self, splits: Iterable[Split]) -> list[StoredFile]:
        """What must be there to read these splits: to be fetched, with sizes to compare the disk with."""
        wanted = set(splits)
        names = {DICTIONARY} | {lines_name(split) for split in wanted}
        names |= {shard.name for shard in self.shards if shard.split in wanted}
        return [file for file in self.files if file.name in names]

    def to_json(self) -> bytes:
        """The same set, the same bytes."""
        return (json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n").encode()


class Entry(_Model):
    """One sample: a line of index/<split>.jsonl."""

    shard: Count
    offset: Count
    """Of the image's first byte in the shard."""
    length: Count
    """Bytes."""
    name: str
    """Member of the tar; unique in the set."""
    label: str
    sha256: Sha256
    width: Count
    height: Count

    def to_line(self) -> bytes:
        """JSON escapes line ends in labels, so a line is a sample."""
        return (json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def lines_name(split: Split) -> str:
    """The file of a split's sample lines."""
    return f"index/{split}.jsonl"


def read_index(data: bytes, where: str) -> PackedIndex:
    """index.json from its bytes; `where` is how messages name it.

    Raises:
        DatasetInvalid: it isn't one, is of a newer version, or contradicts itself.
    """
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise DatasetInvalid(f"{where} isn't JSON ({exc}): pack the set again.") from exc
    if not isinstance(raw, dict) or raw.get("format") != "rectrain-packed":
        raise DatasetInvalid(f"{where} isn't the index of a packed set: make one with rectrain-data pack.")
    if raw.get("version") != VERSION:
        raise DatasetInvalid(
            f"{where} is a packed set of version {raw.get('version')!r}, and this RecTrain reads {VERSION}: "
            "pack the set again with this version, or use a newer RecTrain."
        )
    try:
        index = PackedIndex.model_validate(raw)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        _refuse(where, f"{place}: {first['msg']}")
    _check_consistent(index, where)
    return index


def _check_consistent(index: PackedIndex, where: str) -> None:
    names = [file.name for file in index.files]
    if len(set(names)) != len(names):
        _refuse(where, "a file is listed twice")
    needed = {DICTIONARY} | {lines_name(split) for split in index.splits}
    needed |= {shard.name for shard in index.shards}
    for name in sorted(needed - set(names)):
        _refuse(where, f"{name} isn't listed")
    for split in index.splits:
        if sum(shard.samples for shard in index.shards if shard.split == split) != index.counts[split]:
            _refuse(where, f"the shards of {split} don't add up to its count")


def parse_entry(line: bytes, index: PackedIndex, split: Split, where: str) -> Entry:
    """One sample line, checked against the shard that it names. Raises DatasetInvalid."""
    try:
        entry = Entry.model_validate_json(line)
    except ValidationError as exc:
        first = exc.errors()[0]
        _refuse(where, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    if not is_inside(entry.name):
        _refuse(where, f"the name {entry.name!r} leaves the set")
    if entry.shard >= len(index.shards) or index.shards[entry.shard].split != split:
        _refuse(where, f"shard {entry.shard} isn't one of {split}")
    if entry.offset + entry.length > index.sizes[index.shards[entry.shard].name]:
        _refuse(where, f"the image lies beyond the end of {index.shards[entry.shard].name}")
    return entry


def _refuse(where: str, why: str) -> NoReturn:
    raise DatasetInvalid(f"{where} is damaged ({why}): pack the set again, or fetch it again.")
