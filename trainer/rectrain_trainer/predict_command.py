"""`rectrain-trainer predict`: what an exported model reads, on stdout as it is read. Called by the CLI.

Images that can't be read are named on stderr, and the others are read all the same.
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rectrain_api.errors import DatasetInvalid, RectrainError
from rectrain_data.transfer.local import is_local, local_path
from rectrain_trainer.device import configure_device
from rectrain_trainer.predict import Prediction, Predictor, Unread, image_files

log = logging.getLogger(__name__)


def run(model: str, named: Sequence[Path], *, as_json: bool) -> None:
    """Read images, and all images in folders, with the model in a folder, local or s3://….

    Raises DatasetInvalid at the end when some couldn't be read; InputMissing.
    """
    images = image_files(named)
    configure_device(0)
    with tempfile.TemporaryDirectory(prefix="rectrain-model-") as temporary:
        folder = local_path(model) if is_local(model) else Path(model)
        if model.startswith("s3://"):
            from rectrain_trainer.fetch_model import fetch_model

            folder = fetch_model(model, Path(temporary))
        try:
            predictor = Predictor(folder)
            started = time.monotonic()
            unread = _show(predictor.predict(images), as_json=as_json)
        except (RectrainError, OSError):
            raise
        except Exception as e:  # whatever Paddle and NumPy say of files that don't fit together
            said = f"{type(e).__name__}: {' '.join(str(e).split())}"
            raise DatasetInvalid(
                f"The model in {model} can't be used ({said}): it was damaged or changed; fetch it or export "
                "it again."
            ) from e
    seconds = time.monotonic() - started
    read = len(images) - unread
    log.info("Read %d images in %.1f s (%.0f images/s).", read, seconds, read / seconds)
    if unread:
        raise DatasetInvalid(f"{unread} of {len(images)} images couldn't be read: they are named above.")


def _show(found: Iterable[Prediction | Unread], *, as_json: bool) -> int:
    """Print what was read; how many couldn't be is returned."""
    unread, before = 0, "["
    for one in found:
        if isinstance(one, Unread):
            log.error("%s", one.problem)
            unread += 1
        elif as_json:
            row = {"image": str(one.path), "text": one.text, "confidence": float(one.confidence)}
            _say(f"{before}\n  {json.dumps(row, ensure_ascii=False)}")
            before = ","
        else:
            _say(f"{one.path}\t{one.text}\t{one.confidence:.3f}\n")
    if as_json:
        _say("[]\n" if before == "[" else "\n]\n")
    return unread


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
