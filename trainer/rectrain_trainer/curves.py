"""The run's curves over all attempts, from their metrics in S3. Called when the run is published.

An attempt that went on from a checkpoint overrules what earlier ones measured after it: so every step is
there once, as if the run had never been interrupted. Within an attempt a rollback undoes what came after the
step that was gone back to.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rectrain_api.records import attempt_prefix
from rectrain_data.transfer import Store

Row = dict[str, Any]


def evaluations(store: Store, earlier: Iterable[int], own: Sequence[Row]) -> list[Row]:
    """Evaluation rows by step: those of earlier attempts from S3, this one's (all its rows) as given."""
    attempts = [rows_in(store, attempt) for attempt in earlier]
    return [row for row in merge([*attempts, own]) if row["kind"] == "eval"]


def rows_in(store: Store, attempt: int) -> list[Row]:
    """All rows that an attempt has left."""
    keys = store.list_keys(f"{attempt_prefix(attempt)}metrics/")
    return [row for data in store.get_all(keys) for row in rows_of(data)]


def rows_of(data: bytes) -> list[Row]:
    """Rows of one metrics chunk; a line that isn't one is passed over."""
    rows = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(row, dict)
            and row.get("kind") in ("train", "eval", "rollback")
            and isinstance(row.get("step"), int)
        ):
            rows.append(row)
    return rows


def settled(rows: Sequence[Row]) -> list[Row]:
    """An attempt's rows without what a rollback undid. Pure."""
    kept: list[Row] = []
    for row in rows:
        if row["kind"] == "rollback":
            kept = [before for before in kept if before["step"] <= row["toStep"]]
        else:
            kept.append(row)
    return kept


def merge(attempts: Sequence[Sequence[Row]]) -> list[Row]:
    """One row a step and kind, in order: a later attempt overrules what came at or after its first step,
    and an evaluation that it made again. Pure."""
    kept: dict[tuple[int, str], Row] = {}
    for attempt in attempts:
        rows = settled(attempt)
        first = min((row["step"] for row in rows if row["kind"] == "train"), default=None)
        if first is not None:
            kept = {key: row for key, row in kept.items() if key[0] < first}
        kept |= {(row["step"], row["kind"]): row for row in rows}
    return [kept[key] for key in sorted(kept, key=lambda key: (key[0], key[1] == "eval"))]
