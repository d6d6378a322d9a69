"""How a command ends that isn't a run: in one sentence and its exit code. Called by the command line."""

import contextlib
import logging
from collections.abc import Iterator

import typer

from rectrain_api.exit_codes import outcome_of
from rectrain_data.interrupts import Interrupts
from rectrain_trainer.complaint import complain, meant
from rectrain_trainer.console import set_up_logging
from rectrain_trainer.supervisor import unblock_signals

log = logging.getLogger(__name__)


@contextlib.contextmanager
def ending_in_a_sentence(debug: bool, interrupted: str = "Interrupted.") -> Iterator[Interrupts]:
    """Whatever goes wrong within ends in one sentence and its exit code."""
    set_up_logging(debug=debug)
    interrupts = Interrupts()
    interrupts.install()
    unblock_signals()
    try:
        yield interrupts
    except KeyboardInterrupt:
        log.error("%s", interrupted)
        raise typer.Exit(interrupts.status) from None
    except (BrokenPipeError, typer.Exit):
        raise
    except Exception as e:
        error = meant(e)
        complain(error, debug)
        raise typer.Exit(outcome_of(error).exit_code) from None
