"""Reads images with PyPI's paddleocr. Run by an interpreter that has it, never imported: parity starts it.

    PYTHON -I paddleocr_reader.py MODEL_NAME MODEL_DIR < one path a line

Says `READY version` once paddleocr is imported, then `READ "text"` for each image, in order.
"""

import json
import sys
from importlib.metadata import version

from paddleocr import TextRecognition


def _main() -> None:
    print(f"READY {version('paddleocr')}", flush=True)  # noqa: T201
    paths = sys.stdin.read().splitlines()
    model = TextRecognition(model_name=sys.argv[1], model_dir=sys.argv[2], device="cpu")
    for result in model.predict(paths, batch_size=1):  # larger batches are padded to their widest image
        print(f"READ {json.dumps(result.json['res']['rec_text'])}", flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
