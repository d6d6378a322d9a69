"""Labelled images of digits, made here: for `make demo`, tutorials and tests. Called by `rectrain-data demo`.

Each image depends on seed and number alone, so that the same seed gives the same bytes whatever the number
of threads, with the same versions of Pillow, OpenCV, NumPy and font-roboto (constraints.txt pins them).
"""

import io
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rectrain_data import labels
from rectrain_data.images import Pixels, encode
from rectrain_data.ordered import map_ordered
from rectrain_data.wholeness import whole_folder

_FONTS = ("Regular", "Bold", "Italic", "Light", "Medium", "Black", "BoldItalic", "MediumItalic")
_MAX_DIGITS = 5
_SIZES = (18, 56)
"""Font sizes [px], both included."""
_MIN_CONTRAST = 90
"""Least distance between text and background, in grey levels."""
LABELS = "labels.txt"
_CHUNK = 50


def make(target: Path, *, count: int, seed: int, progress: Callable[[int], None] | None = None) -> Path:
    """Write `count` images and their label file into a folder; returns the label file.

    Raises:
        UsageError: the folder exists and isn't empty.
    """
    width = max(5, len(str(count)))
    with whole_folder(target) as folder:
        (folder / "images").mkdir()

        def make_chunk(start: int) -> list[tuple[str, str]]:
            rows = []
            for number in range(start, min(start + _CHUNK, count)):
                name, (text, data) = f"images/{number:0{width}d}.png", sample(seed, number)
                (folder / name).write_bytes(data)
                rows.append((name, text))
            return rows

        rows: list[tuple[str, str]] = []
        for chunk in map_ordered(make_chunk, range(0, count, _CHUNK)):
            rows += chunk
            if progress:
                progress(len(chunk))
        labels.write(folder / LABELS, rows)
    return target / LABELS


def sample(seed: int, number: int) -> tuple[str, bytes]:
    """One text and its image, as PNG."""
    rng = np.random.default_rng([seed, number])
    text = "".join(str(d) for d in rng.integers(0, 10, size=rng.integers(1, _MAX_DIGITS + 1)))
    name = _FONTS[rng.integers(len(_FONTS))]
    pixels = _draw(text, _font(name, int(rng.integers(_SIZES[0], _SIZES[1] + 1))), rng)
    return text, encode(_spoil(pixels, rng), ".png")


@lru_cache(maxsize=len(_FONTS))
def _font_file(name: str) -> bytes:
    return (files("font_roboto") / "files" / f"Roboto-{name}.ttf").read_bytes()


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of this thread's own: FreeType faces aren't shared between threads."""
    return ImageFont.truetype(io.BytesIO(_font_file(name)), size)


def _draw(text: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> Pixels:
    """The text in a colour that stands out from its background, with margins that vary."""
    left, top, right, bottom = (round(v) for v in font.getbbox(text))
    margins = rng.integers(2, 2 + max(3, round(font.size / 4)), size=4)
    size = (right - left + int(margins[0] + margins[1]), bottom - top + int(margins[2] + margins[3]))
    back, fore = _colours(rng)
    image = Image.new("RGB", size, back)
    origin = (int(margins[0]) - left, int(margins[2]) - top)
    ImageDraw.Draw(image).text(origin, text, font=font, fill=fore)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8)[:, :, ::-1])


def _colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Background and text: two greys apart, each tinted a little."""
    dark = int(rng.integers(0, 256 - _MIN_CONTRAST))
    light = int(rng.integers(dark + _MIN_CONTRAST, 256))
    tints = rng.integers(-20, 21, size=(2, 3))
    colours = [
        tuple(int(v) for v in np.clip(grey + t, 0, 255)) for grey, t in zip((light, dark), tints, strict=True)
    ]
    return (colours[0], colours[1]) if rng.random() < 0.7 else (colours[1], colours[0])


def _spoil(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Blur some, add noise to most."""
    if rng.random() < 0.5:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.3, 1.2))), dtype=np.uint8)
    strength = rng.uniform(0, 12)
    noise = rng.normal(0.0, strength, size=pixels.shape).astype(np.float32)
    return np.asarray(np.clip(pixels + noise, 0, 255), dtype=np.uint8)
