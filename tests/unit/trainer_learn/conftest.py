"""The trainer's tests run on the CPU, deterministically, on a few generated digits."""

from pathlib import Path

import pytest

from rectrain_trainer.device import configure_device
from tests.unit.trainer_learn.digits import make_digits

configure_device(0, deterministic=True)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labels.txt and 50 images of 1-4 digits."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, 50, seed=3, longest=4)
    return folder
