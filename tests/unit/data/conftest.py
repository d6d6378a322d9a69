"""Small images and sets for the data tests."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from rectrain_data import labels
from rectrain_data.labels import LooseSet


def png(width: int = 40, height: int = 20, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def loose(tmp_path: Path) -> Callable[..., LooseSet]:
    """Makes a loose set of (text, image bytes or None) in a folder of its own."""

    def make(*rows: tuple[str, bytes | None], name: str = "loose") -> LooseSet:
        folder = tmp_path / name
        (folder / "i").mkdir(parents=True)
        written = []
        for number, (text, data) in enumerate(rows):
            path = f"i/{number}.png"
            if data is not None:
                (folder / path).write_bytes(data)
            written.append((path, text))
        labels.write(folder / "labels.txt", written)
        return LooseSet.open(folder / "labels.txt")

    return make
