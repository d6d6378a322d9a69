"""What the commands print for people: plain tables. Pure but for the printing."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rectrain_api.presets import Preset, all_presets

Sizes = dict[str, dict[str, float]]
"""By preset: parameters, exportedMb, readMs (an image, on one core)."""
_PIPE_WIDTH: Final = 10_000
"""Nothing is folded where there is no terminal."""


def rows_of_presets(sizes: Sizes) -> list[dict[str, Any]]:
    """Every preset, and each of PaddleOCR's names for it."""
    return [
        {
            "name": preset.name,
            "title": preset.title,
            "imageShape": preset.image_shape,
            "maxTextLength": preset.max_text_length,
            "epochs": preset.epochs,
            "batchSize": preset.batch_size,
            "learningRate": preset.learning_rate,
            **sizes.get(preset.name, {}),
            "aliases": [
                {"name": alias.name, **({"dictionary": alias.dictionary} if alias.dictionary else {})}
                for alias in preset.aliases
            ],
        }
        for preset in all_presets().values()
    ]


def show_presets(sizes: Sizes) -> None:
    """Presets, then the names that PaddleOCR has for them."""
    console = _console()
    columns = [
        "preset",
        "image",
        "text",
        "epochs",
        "batch",
        "rate",
        *(["parameters", "exported", "reads in"] if sizes else []),
    ]
    console.print(_table(columns, [_row(p, sizes.get(p.name)) for p in all_presets().values()]))
    aliases = [
        [alias.name, preset.name, alias.dictionary or ""]
        for preset in all_presets().values()
        for alias in preset.aliases
    ]
    console.print()
    console.print(_table(["PaddleOCR's name", "preset", "dictionary"], aliases))


def _row(preset: Preset, size: dict[str, float] | None) -> list[str]:
    _, height, width = preset.image_shape
    sampler = preset.config.sampler
    sizes = f", {len(sampler.scales)} sizes" if sampler and len(sampler.scales) > 1 else ""
    known = (
        [
            f"{size['parameters'] / 1e6:.2f} M",
            f"{size['exportedMb']:g} MB",
            f"{size['readMs']:g} ms",
        ]
        if size
        else []
    )
    return [
        preset.name,
        f"{height}x{width}{sizes}",
        f"up to {preset.max_text_length}",
        str(preset.epochs),
        str(preset.batch_size),
        f"{preset.learning_rate:g}",
        *known,
    ]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ; `ABSENT` where one lacks it."""
    left, right = dict(_flat(one)), dict(_flat(other))
    keys = [*left, *(key for key in right if key not in left)]
    return [
        (key, left.get(key, ABSENT), right.get(key, ABSENT))
        for key in keys
        if left.get(key, ABSENT) != right.get(key, ABSENT)
    ]


ABSENT: Final = "-"


def _flat(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list) and any(isinstance(one, dict) for one in node):
        for i, value in enumerate(node):
            yield from _flat(value, f"{where}.{i}")
    else:
        yield where, node


def show_differences(names: tuple[str, str], rows: list[tuple[str, Any, Any]]) -> None:
    """A table, or a sentence when there are none."""
    console = _console()
    if not rows:
        console.print(f"{names[0]} and {names[1]} are the same model, trained the same way.")
        return
    console.print(_table(["", *names], [[key, _said(one), _said(other)] for key, one, other in rows]))


def show_rows(columns: Sequence[str], rows: list[list[str]]) -> None:
    """Any table."""
    _console().print(_table(columns, rows))


def _said(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _table(columns: Sequence[str], rows: list[list[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    return table
