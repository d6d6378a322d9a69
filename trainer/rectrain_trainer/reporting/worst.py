"""samples.json of an attempt: the samples that its best weights read worst, with their images.

Written when a run is published; read by `gather`. Bounded: few samples, each image at the height of training.
"""

import base64
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

import cv2
import numpy as np

from rectrain_api.errors import RectrainError
from rectrain_data import images
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.misread import Misread
from rectrain_trainer.uris import UriMap

log = logging.getLogger(__name__)

_WIDEST: Final = 1600
"""Pixels; wider images are shrunk."""
_JPEG_QUALITY: Final = 80


def samples_json(worst: Iterable[Misread], held_out: EvalSet, step: int, uris: UriMap) -> bytes:
    """The samples, worst first, each with its place and its image as a data URI."""
    content = {"step": step, "samples": [*_rows(worst, held_out, uris)]}
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")


def _rows(worst: Iterable[Misread], held_out: EvalSet, uris: UriMap) -> Iterator[dict[str, Any]]:
    height = held_out.recipe.image_shape[1]
    for one in worst:
        yield {
            "name": uris.translate(held_out.source.name(one.position)),
            "label": one.label,
            "read": one.read,
            "confidence": one.confidence,
            "distance": one.distance,
            "image": _image(held_out, one.position, height),
        }


def _image(held_out: EvalSet, position: int, height: int) -> str | None:
    try:
        return thumbnail(held_out.samples.image_bytes(position), height)
    except (images.Unreadable, RectrainError, OSError) as e:
        log.warning("The report shows no image of %s: %s", held_out.source.name(position), e)
        return None


def thumbnail(data: bytes, height: int) -> str:
    """A data URI of the image, at most so high [px]. Raises images.Unreadable."""
    pixels = images.decode(data)
    rows, columns = pixels.shape[:2]
    scale = min(1.0, height / rows, _WIDEST / columns)
    if scale < 1:
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(bytes(encoded)).decode()
