"""PyPI's paddleocr as its users have it: what it reads with an exported model.

Called by the parity gate. It is in no image of ours (with its packages it is larger than the trainer itself
without Paddle): a Python interpreter that has it is named by RECTRAIN_PADDLEOCR_PYTHON.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

MASQUERADE: Final = "en_PP-OCRv5_mobile_rec"
"""PaddleX only loads models under names that it knows."""
_KNOWN: Final = frozenset(
    [
        "PP-OCRv3_mobile_rec",
        "en_PP-OCRv3_mobile_rec",
        "korean_PP-OCRv3_mobile_rec",
        "japan_PP-OCRv3_mobile_rec",
        "chinese_cht_PP-OCRv3_mobile_rec",
        "te_PP-OCRv3_mobile_rec",
        "ka_PP-OCRv3_mobile_rec",
        "ta_PP-OCRv3_mobile_rec",
        "latin_PP-OCRv3_mobile_rec",
        "cyrillic_PP-OCRv3_mobile_rec",
        "devanagari_PP-OCRv3_mobile_rec",
        "PP-OCRv4_mobile_rec",
        "PP-OCRv4_server_rec",
        "PP-OCRv4_server_rec_doc",
        "en_PP-OCRv4_mobile_rec",
        "ch_SVTRv2_rec",
        "ch_RepSVTR_rec",
        "PP-OCRv5_server_rec",
        "PP-OCRv5_mobile_rec",
        "latin_PP-OCRv5_mobile_rec",
        "eslav_PP-OCRv5_mobile_rec",
        "korean_PP-OCRv5_mobile_rec",
        "en_PP-OCRv5_mobile_rec",
        "el_PP-OCRv5_mobile_rec",
        "th_PP-OCRv5_mobile_rec",
        "cyrillic_PP-OCRv5_mobile_rec",
        "devanagari_PP-OCRv5_mobile_rec",
        "ta_PP-OCRv5_mobile_rec",
        "te_PP-OCRv5_mobile_rec",
    ]
)
"""Those names (paddlex/modules/text_recognition/model_list.py of 3.7.2), but for Arabic's: under them PaddleX
turns what it reads around."""
VARIABLE: Final = "RECTRAIN_PADDLEOCR_PYTHON"
LIMIT_S: Final = 600.0
WIDEST: Final = 3200
"""Pixels, to which it squeezes wider images."""
_READER: Final = Path(__file__).parent / "paddleocr_reader.py"


@dataclass(frozen=True)
class Consumer:
    """What it did."""

    version: str
    """Empty: it couldn't even be imported."""
    texts: list[str]
    problem: str
    """Why it read nothing, or not all; empty when it did."""


def loads_as(name: str) -> str:
    """The name under which it loads a model that its config names so."""
    return name if name in _KNOWN else MASQUERADE


def width_of(columns: int, rows: int, image_shape: Sequence[int], widest: int = WIDEST) -> int:
    """How wide it makes an image (PaddleX's OCRReisizeNormImg): at least as the model says, else by the
    image's own ratio."""
    _, height, width = image_shape
    return min(int(height * max(width / height, columns / rows)), widest)


def named() -> str:
    """The Python interpreter that has it; empty when there is none."""
    return os.environ.get(VARIABLE, "")


def read_files(folder: Path, images: Sequence[bytes]) -> Consumer:
    """What it reads in these encoded images with the model in `folder`, by the interpreter that is named."""
    python = named()
    model_name = yaml.safe_load((folder / "inference.yml").read_text("utf-8"))["Global"]["model_name"]
    with tempfile.TemporaryDirectory(prefix="rectrain-paddleocr-") as scratch:
        paths = [Path(scratch, f"{i:05d}.png") for i in range(len(images))]  # OpenCV looks at the content
        for path, data in zip(paths, images, strict=True):
            path.write_bytes(data)
        env = {
            "HOME": scratch,
            "TMPDIR": scratch,
            "PATH": os.environ.get("PATH", os.defpath),
            "CUDA_VISIBLE_DEVICES": "",
            "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True",
        }
        try:
            done = subprocess.run(
                [python, "-I", "-X", "utf8", str(_READER), model_name, str(folder)],
                input="\n".join(map(str, paths)),
                env=env,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT_S,
                check=False,
            )
        except OSError as e:
            return Consumer("", [], f"{python} can't be started ({e.strerror})")
        except subprocess.TimeoutExpired:
            return Consumer("", [], f"it took longer than {LIMIT_S:.0f} s")
    lines = done.stdout.splitlines()
    texts = [json.loads(line.removeprefix("READ ")) for line in lines if line.startswith("READ ")]
    version = next((line.removeprefix("READY ") for line in lines if line.startswith("READY ")), "")
    whole = done.returncode == 0 and len(texts) == len(images)
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return Consumer(version, texts, "" if whole else (said or ["it ended without a word"])[-1])
