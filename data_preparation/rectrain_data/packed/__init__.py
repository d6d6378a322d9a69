"""Packed sets: tar shards with an index, random access without unpacking. `packed.index` has the layout."""

from rectrain_data.packed.index import (
    DICTIONARY,
    INDEX,
    Entry,
    PackedIndex,
    Shard,
    StoredFile,
    parse_entry,
    read_index,
)
from rectrain_data.packed.reader import PackedSet, is_packed
from rectrain_data.packed.writer import (
    DEFAULT_SHARD_BYTES,
    MAX_SHARD_BYTES,
    MIB,
    MIN_SHARD_BYTES,
    PackedWriter,
)

__all__ = [
    "DEFAULT_SHARD_BYTES",
    "DICTIONARY",
    "INDEX",
    "MAX_SHARD_BYTES",
    "MIB",
    "MIN_SHARD_BYTES",
    "Entry",
    "PackedIndex",
    "PackedSet",
    "PackedWriter",
    "Shard",
    "StoredFile",
    "is_packed",
    "parse_entry",
    "read_index",
]
