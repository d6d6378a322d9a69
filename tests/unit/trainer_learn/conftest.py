"""The trainer's tests run on the CPU, deterministically, on a few generated digits."""

from pathlib import Path

import pytest

from rectrain_trainer.consumer import VARIABLE
from rectrain_trainer.device import configure_device
from tests.unit.trainer_learn.digits import make_digits
from tests.unit.trainer_learn.exports import CONSUMER, Done, exported

configure_device(0, deterministic=True)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labels.txt and 50 images of 1-4 digits."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, 50, seed=3, longest=4)
    return folder


@pytest.fixture(scope="session", params=["svtr_nano", "crnn_mv3"])
def done(request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Its folder is only looked at."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, str(CONSUMER))
        return exported(request.param, digits, tmp_path_factory.mktemp(request.param) / "export")
