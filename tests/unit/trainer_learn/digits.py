"""A small set of digit images for the trainer's tests: seeded, a few fonts, loose files with a label file."""

import io
import random
from pathlib import Path

import font_roboto
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = [font_roboto.Roboto, font_roboto.RobotoBold, font_roboto.RobotoLight, font_roboto.RobotoItalic]
FONTS += [font_roboto.RobotoBlack]


def draw(text: str, rng: random.Random, height: int = 32) -> bytes:
    """One PNG of `text`, a little different each time."""
    font = ImageFont.truetype(rng.choice(FONTS), rng.randint(int(height * 0.6), int(height * 0.85)))
    left, top, right, bottom = font.getbbox(text)
    paper, ink = rng.randint(170, 255), rng.randint(0, 90)
    width = int(right - left) + rng.randint(6, 14)
    image = Image.new("RGB", (width, height), (paper, paper - rng.randint(0, 20), paper - rng.randint(0, 20)))
    y = (height - (bottom - top)) / 2 - top + rng.uniform(-2, 2)
    ImageDraw.Draw(image).text((rng.randint(2, 5) - left, y), text, font=font, fill=(ink, ink, ink))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_digits(folder: Path, count: int, *, seed: int = 0, longest: int = 5, height: int = 32) -> Path:
    """`count` images and `labels.txt` in `folder`; returns the label file."""
    rng = random.Random(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        text = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, longest)))
        name = f"images/{number:05d}.png"
        (folder / name).write_bytes(draw(text, rng, height))
        lines.append(f"{name}\t{text}\n")
    labels = folder / "labels.txt"
    labels.write_text("".join(lines), encoding="utf-8")
    return labels
