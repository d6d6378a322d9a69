"""What a command says of an error: one sentence. Called by the command line."""

import logging
from pathlib import Path

from rectrain_api.errors import InternalError, RectrainError
from rectrain_data.transfer.files import local_error

log = logging.getLogger(__name__)


def meant(error: Exception) -> RectrainError:
    """Any error as one of ours, for the table and for a sentence."""
    if isinstance(error, RectrainError):
        return error
    if isinstance(error, OSError) and isinstance(error.filename, str):
        meant = local_error(error, Path(error.filename))
    else:
        said = f"{type(error).__name__}: {error}"
        meant = InternalError(f"An error of the trainer's own: {said}; --debug shows where.")
    meant.__cause__ = error
    return meant


def complain(error: RectrainError, debug: bool) -> None:
    """The sentence, on stderr; with the traceback when that was asked for."""
    log.error("%s", error, exc_info=error if debug else None)
