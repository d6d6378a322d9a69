"""An exported model from S3. Called by `rectrain-trainer predict`."""

from pathlib import Path
from typing import Final

from rectrain_api.errors import InputMissing
from rectrain_data.transfer import Download, S3Options, open_store
from rectrain_trainer.predict import NEEDED

_LARGEST_FOLDER: Final = 100


def fetch_model(uri: str, folder: Path) -> Path:
    """Download what reading takes of an export into `folder`. Raises InputMissing naming what isn't there."""
    store = open_store(uri, S3Options.from_environment())
    there = {o.key: o.size for _, o in zip(range(_LARGEST_FOLDER), store.list_objects(), strict=False)}
    missing = [name for name in NEEDED if name not in there]
    if missing:
        raise InputMissing(
            f"{store.uri} isn't an exported model ({missing[0]} isn't there): name the folder export of a "
            "run's place, such as s3://bucket/run/export."
        )
    store.download_all([Download(name, folder / name, there[name]) for name in NEEDED])
    return folder
