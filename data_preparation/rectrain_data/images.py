"""Images as bytes: decode, resize to the training height, encode. Pure; OpenCV does the work.

Decoding is what training does (`cv2.imdecode`, colour, EXIF orientation applied), so that what passes here
passes there. Used by checks, convert and demo.
"""

import io
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""uint8, H x W x 3, BGR."""
_ORIENTATION = 0x0112
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG_QUALITY = 95
CUT_OFF = "the file is cut off"


class Unreadable(ValueError):
    """An image that can't be decoded; `str()` says why."""


def decode(data: bytes) -> Pixels:
    """The pixels of an encoded image. Raises Unreadable."""
    if not data:
        raise Unreadable("the file is empty")
    if is_cut_off(data):
        raise Unreadable(CUT_OFF)
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        raise Unreadable("it is too large or damaged") from exc
    if pixels is None:
        raise Unreadable("it isn't an image in a format that OpenCV reads")
    found: Pixels = pixels
    return found


def is_cut_off(data: bytes) -> bool:
    """Whether the end of a JPEG or PNG is missing: OpenCV fills the rest with grey and says nothing."""
    if data.startswith(_JPEG):
        return b"\xff\xd9" not in data[-4096:]
    return data.startswith(_PNG) and b"IEND" not in data[-4096:]


def look(data: bytes) -> None:
    """Whether these bytes begin and end as an image does; a format whose ends aren't known is decoded.

    A hundred times as fast as decoding, which alone sees damage in the middle. Raises Unreadable.
    """
    if data.startswith((_JPEG, _PNG)):
        if is_cut_off(data):
            raise Unreadable(CUT_OFF)
        return
    decode(data)


def opens(data: bytes) -> bool:
    """Whether OpenCV makes some image of these bytes, be it half grey: all that upstream asks for."""
    try:
        return bool(data) and cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) is not None
    except cv2.error:
        return False


def at_height(data: bytes, name: str, height: int | None) -> tuple[str, bytes, int, int]:
    """The image at this height, aspect kept, EXIF orientation applied and dropped.

    Returns name, bytes, width and height. Bytes that need no change are kept as they are; others are written
    as JPEG or PNG after the name's ending, and any other ending gets `.png` behind it. Raises Unreadable.
    """
    pixels = decode(data)
    rows, columns = pixels.shape[:2]
    if (height is None or rows == height) and _is_plain(data):
        return name, data, columns, rows
    if height is not None and rows != height:
        columns = max(1, round(columns * height / rows))
        shrink = cv2.INTER_AREA if height < rows else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (columns, height), interpolation=shrink), dtype=np.uint8)
        rows = height
    ending = PurePosixPath(name).suffix.lower()
    if ending not in (".jpg", ".jpeg", ".png"):
        name, ending = f"{name}.png", ".png"
    return name, encode(pixels, ending), columns, rows


def encode(pixels: Pixels, ending: str) -> bytes:
    """JPEG (quality 95) or PNG bytes; the same pixels give the same bytes with one OpenCV version."""
    options = [] if ending == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, encoded = cv2.imencode(ending, pixels, options)
    return bytes(encoded)


def _is_plain(data: bytes) -> bool:
    """JPEG or PNG without an orientation to apply."""
    if not data.startswith((_JPEG, _PNG)):
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            return bool(image.getexif().get(_ORIENTATION, 1) == 1)
    except (OSError, SyntaxError, ValueError):
        return False
