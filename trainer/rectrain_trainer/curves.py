"""The run's evaluations over all attempts, for its report. Called when the run is published.

Earlier attempts left theirs in their metrics; an attempt that went on from an older checkpoint overrules
what another one measured at the same step.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rectrain_api.records import attempt_prefix
from rectrain_data.transfer import Store

Row = dict[str, Any]


def evaluations(store: Store, earlier: Iterable[int], own: Sequence[Row]) -> list[Row]:
    """Evaluation rows by step: those of earlier attempts from S3, this one's as given."""
    rows: list[Row] = []
    for attempt in earlier:
        for data in store.get_all(store.list_keys(f"{attempt_prefix(attempt)}metrics/")):
            rows += rows_of(data)
    return merge([*rows, *own])


def rows_of(data: bytes) -> list[Row]:
    """Evaluation rows of one metrics chunk; a line that isn't one is passed over."""
    rows = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("kind") == "eval" and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def merge(rows: Iterable[Row]) -> list[Row]:
    """One row a step, the last given one, in order of steps. Pure."""
    by_step = {row["step"]: row for row in rows}
    return [by_step[step] for step in sorted(by_step)]
