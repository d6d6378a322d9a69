"""Fetches a release of PaddleOCR for the GPU image: `python3 images/paddleocr.py VERSION SHA256 FOLDER`.

Standard library only. The hash must be given: what is unpacked becomes code of the image.
"""

import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

URL = "https://github.com/PaddlePaddle/PaddleOCR/archive/refs/tags/v{version}.tar.gz"
KEPT = ("ppocr", "tools", "LICENSE")
"""All that training imports."""


def main(version: str, sha256: str, folder: Path) -> None:
    """Exit with a sentence when it isn't what was asked for."""
    if not sha256:
        sys.exit(
            "Give the archive's sha256: --build-arg PADDLEOCR_SHA256=… (sha256sum of the release's .tar.gz)."
        )
    with urllib.request.urlopen(URL.format(version=version), timeout=300) as answer:  # noqa: S310 - https
        archive = answer.read()
    found = hashlib.sha256(archive).hexdigest()
    if found != sha256:
        sys.exit(
            f"PaddleOCR {version} has the sha256 {found}, not {sha256}: the release was changed, or damaged."
        )
    unpack(archive, folder)


def unpack(archive: bytes, folder: Path) -> None:
    """What training needs of the archive, into a new folder."""
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(temporary, filter="data")
        (top,) = Path(temporary).iterdir()
        folder.mkdir(parents=True)
        for name in KEPT:
            shutil.move(top / name, folder / name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
