"""Images with their labels on one sheet. Called by `preview`.

Labels may be of any script: Thai needs marks placed and Arabic letters joined, which takes libraqm and a font
that has them. What can't be drawn right is said.
"""

import io
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from rectrain_api.errors import InputMissing

WIDTH: Final = 1400
MARGIN: Final = 16
GAP: Final = 10
TEXT: Final = 18
TITLE: Final = 20
_PAPER: Final = (255, 255, 255)
_INK: Final = (24, 24, 24)
_FRAME: Final = (200, 200, 200)
_JOINING: Final = (("Arabic", 0x0600, 0x08FF), ("Thai", 0x0E00, 0x0E7F), ("an Indic script", 0x0900, 0x0DFF))
"""Scripts that need more than one glyph after another."""


@dataclass(frozen=True)
class Picture:
    """One image and its label."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    """H x W x 3, RGB."""
    text: str


@dataclass(frozen=True)
class Block:
    """The images of one batch."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Face:
    """Fonts, the first of which has most of the characters, and what they can't do."""

    fonts: list[ImageFont.FreeTypeFont]
    problems: list[str]

    @property
    def line_height(self) -> int:
        return max(sum(font.getmetrics()) for font in self.fonts) + 4

    def width(self, text: str) -> int:
        """Of the drawn text [px]."""
        return int(sum(font.getlength(part) for font, part in self._runs(text))) + 1

    def write(self, pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str) -> None:
        """The text with its top left corner there."""
        x, top = float(at[0]), at[1]
        base = top + max(font.getmetrics()[0] for font in self.fonts)
        for font, part in self._runs(text):
            pen.text((x, base), part, font=font, fill=_INK, anchor="ls")
            x += font.getlength(part)

    def _runs(self, text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
        """Parts of one font each. What is written from right to left stays whole, to be put in order."""
        if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
            return [(self.fonts[0], text)]
        runs: list[tuple[ImageFont.FreeTypeFont, str]] = []
        for character in text:
            fits = (font for font in self.fonts if _has(font, character))
            font = runs[-1][0] if runs and character.isspace() else next(fits, self.fonts[0])
            if runs and runs[-1][0] is font:
                runs[-1] = (font, runs[-1][1] + character)
            else:
                runs.append((font, character))
        return runs


def face_for(texts: Iterable[str], named: Path | None = None) -> Face:
    """A font that has the characters of these texts: the one that is named, else one of this machine."""
    wanted = sorted({character for text in texts for character in text if not character.isspace()})
    problems = []
    fonts = [_open(named) if named else _find(wanted), _builtin_font(TEXT)]
    lacking = [c for c in wanted if not any(_has(font, c) for font in fonts)]
    if lacking:
        first = " ".join(f"U+{ord(character):04X}" for character in lacking[:5])
        problems.append(
            f"The font {fonts[0].getname()[0]} lacks {len(lacking)} characters of the labels ({first}), "
            "drawn as boxes: name one that has them with --font."
        )
    script = next((name for name, first, last in _JOINING if _any_in(wanted, first, last)), "")
    if script and not features.check("raqm"):
        problems.append(
            f"Labels in {script} aren't drawn as they are written: this Pillow has no libraqm to place marks "
            "and join letters. What is trained on isn't affected."
        )
    return Face(fonts, problems)


def draw(blocks: Sequence[Block], face: Face) -> Image.Image:
    """The sheet, as high as it must be."""
    title_font, line_height = _builtin_font(TITLE), face.line_height
    rows = [(block, _lines(block, face)) for block in blocks]
    heights = [
        TITLE + 2 * GAP + sum(_row_height(row, line_height) + GAP for row in lines) for _, lines in rows
    ]
    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    y = MARGIN
    for block, lines in rows:
        pen.text((MARGIN, y), block.title, font=title_font, fill=_INK)
        y += TITLE + 2 * GAP
        for row in lines:
            x = MARGIN
            for picture in row:
                x = _place(sheet, pen, picture, (x, y), face)
            y += _row_height(row, line_height) + GAP
    return sheet


def _place(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    picture: Picture,
    at: tuple[int, int],
    face: Face,
) -> int:
    """Image, frame and label; returns where the next one begins."""
    x, y = at
    height, width, _ = picture.pixels.shape
    sheet.paste(Image.fromarray(picture.pixels), (x, y))
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=_FRAME)
    face.write(pen, (x, y + height + 2), picture.text)
    return x + _cell(picture, face) + GAP


def _lines(block: Block, face: Face) -> list[list[Picture]]:
    """As many in a row as there is room for."""
    rows: list[list[Picture]] = []
    left = 0
    for picture in block.pictures:
        width = _cell(picture, face) + GAP
        if not rows or width > left:
            rows.append([])
            left = WIDTH - 2 * MARGIN + GAP
        rows[-1].append(picture)
        left -= width
    return rows


def _cell(picture: Picture, face: Face) -> int:
    """Width of the image or its label, whichever is more."""
    width: int = picture.pixels.shape[1]
    return max(width, face.width(picture.text))


def _row_height(row: list[Picture], line_height: int) -> int:
    highest: int = max(picture.pixels.shape[0] for picture in row)
    return highest + line_height


# -- fonts


def _builtin_font(size: int) -> ImageFont.FreeTypeFont:
    """Of a package, so there everywhere: Latin, Greek and Cyrillic."""
    data = (files("font_roboto") / "files" / "Roboto-Regular.ttf").read_bytes()
    return ImageFont.truetype(io.BytesIO(data), size)


def _find(wanted: list[str]) -> ImageFont.FreeTypeFont:
    """Roboto if it has all; else what fontconfig has for these characters, where it is installed."""
    roboto = _builtin_font(TEXT)
    if all(_has(roboto, character) for character in wanted) or not shutil.which("fc-match"):
        return roboto
    charset = " ".join(f"{ord(c):x}" for c in wanted if not _has(roboto, c))
    asked = ["fc-match", "-f", "%{file}", f":charset={charset}"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    return ImageFont.truetype(found, TEXT) if found and Path(found).is_file() else roboto


def _open(path: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), TEXT)
    except OSError as wrong:
        raise InputMissing(f"The font {path} can't be read: name a .ttf or .otf file.") from wrong


def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether it isn't drawn as what every missing character is drawn as."""
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010fffe"))


def _any_in(characters: list[str], first: int, last: int) -> bool:
    return any(first <= ord(character) <= last for character in characters)
