"""The process that trains: from arguments to an ending. Started by the supervisor, never by a user.

    python -m rectrain_trainer.child --plan run.json --work-dir DIR --recorder FD

The one place where an error becomes an exit code and a result. The supervisor reads the result from the
flight recorder.
"""

import argparse
import contextlib
import logging
import os
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

from pydantic import ValidationError

from rectrain_api.errors import (
    Fenced,
    Interrupted,
    InvalidSpec,
    PermissionRefused,
    RectrainError,
    StoreUnavailable,
)
from rectrain_api.exit_codes import EX_OK, outcome_of
from rectrain_api.plan import Plan, parse_plan
from rectrain_api.report import Stage
from rectrain_data.transfer.local import is_local
from rectrain_trainer.board import Board
from rectrain_trainer.chunks import ChunkHandler, Chunks
from rectrain_trainer.console import PLAIN, Narrator, set_up_logging
from rectrain_trainer.die_with import die_with
from rectrain_trainer.environment import PodEnvironment
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.outcome import Until
from rectrain_trainer.ranks import Ranks
from rectrain_trainer.report import Reporter
from rectrain_trainer.stacks import offer_stacks
from rectrain_trainer.supervisor import stop_margin_s
from rectrain_trainer.upstream_words import UpstreamWords

if TYPE_CHECKING:
    from rectrain_trainer.found import Found

log = logging.getLogger("rectrain_trainer.child")  # not __main__, as which this module runs


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one attempt and leave, without the interpreter's own end (Paddle's may crash or hang)."""
    arguments = _parse(argv)
    die_with(os.getppid())
    warnings.filterwarnings("ignore", category=UserWarning, module="paddle")
    ranks = Ranks.from_environment()
    console = set_up_logging(debug=arguments.debug, beside=None if ranks.leads_pod else ranks.share.rank)
    plan = read_plan(arguments.plan)
    if is_local(plan.checkpoint.uri):
        for handler in logging.getLogger().handlers:
            handler.addFilter(UpstreamWords())
    grace_s = plan.termination_grace_seconds
    interrupt = Interrupt(grace_s - stop_margin_s(grace_s))
    board = Board(plan.checkpoint.uri, FlightRecorder(arguments.recorder))
    narrator = Narrator(board, console)
    narrator.start()
    try:
        code = attempt(
            plan, arguments.plan, arguments.work_dir, board, interrupt, arguments.until, arguments.json
        )
    finally:
        narrator.close()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def attempt(
    plan: Plan,
    plan_path: Path,
    work_dir: Path,
    board: Board,
    interrupt: Interrupt,
    until: Until = "end",
    as_json: bool = False,
) -> int:
    """One attempt, its ending told everywhere (log, reports, flight recorder). Returns the exit code.

    Of a check alone, what was found goes to stdout.
    """
    pod, ranks = PodEnvironment.read(), Ranks.from_environment()
    chunks = Chunks()
    handler = ChunkHandler(chunks)
    handler.setFormatter(logging.Formatter(PLAIN))
    logging.getLogger().addHandler(handler)
    offer_stacks(chunks, work_dir / "stacks", ranks.share.rank, ranks.in_pod)
    reporter = Reporter(pod.report, plan.identity, board) if pod.report and ranks.first else None
    if reporter:
        reporter.start()
    run = None
    try:
        interrupt.install()
        interrupt.check()
        from rectrain_trainer.run import Run

        show = partial(_show, as_json=as_json) if until == "checked" else None
        run = Run(plan, pod, board, interrupt, chunks, work_dir, plan_path, ranks, show)
        outcome = run.execute(until)
        code, reason, message = EX_OK, outcome.reason, outcome.message
        log.info("%s", message)
    except BaseException as e:
        code, reason, message = _ending_of(_meant(e, board, interrupt), board)
    with interrupt.deferred():  # what is left to do is bounded
        if run is not None:
            run.end(reason)
        if run is not None and code != EX_OK:
            chunks.close()
            run.report(reason)
        board.end(code, reason, message)
        if reporter:
            reporter.close()
        chunks.close()
        for leftover in ("snapshots", "resume", "out") if ranks.leads_pod else ():
            shutil.rmtree(work_dir / leftover, ignore_errors=True)
    return code


def _show(found: "Found", *, as_json: bool) -> None:
    sys.stdout.write((found.to_json() if as_json else found.to_text()) + "\n")
    sys.stdout.flush()


def _meant(error: BaseException, board: Board, interrupt: Interrupt) -> BaseException:
    """What an error is to be taken for.

    Once told to stop, whatever breaks breaks of that (an import cut short, a retry given up), unless a
    newer attempt has taken over. Permission that is lost in mid-run may come back, as a service may.
    """
    if interrupt.requested and not isinstance(error, Interrupted | Fenced):
        return Interrupted(f"Told to stop in stage {board.stage.value}.")
    begun = board.stage not in (Stage.STAGING, Stage.CHECKING)
    if begun and isinstance(error, PermissionRefused):
        return StoreUnavailable(str(error))
    return error


def _ending_of(error: BaseException, board: Board) -> tuple[int, str, str]:
    """Exit code, reason and sentence of an error."""
    row = outcome_of(error)
    if isinstance(error, RectrainError):
        message = str(error)
        log.debug("%s", row.reason, exc_info=error)
    else:
        message = (
            f"An error of the trainer's own in stage {board.stage.value}: {type(error).__name__}: {error}"
        )
        in_pod = PodEnvironment.read().in_pod
        log.log(logging.ERROR if in_pod else logging.DEBUG, "%s", message, exc_info=error)
    log.error("%s: %s", row.reason, message)
    return row.exit_code, row.reason, message


def read_plan(path: Path) -> Plan:
    """run.json. Raises InvalidSpec."""
    try:
        return parse_plan(path.read_bytes())
    except OSError as e:
        raise InvalidSpec(f"The run plan {path} can't be read ({e.strerror}).") from e
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(
            f"The run plan {path} can't be used ({where}: {first['msg']}): operator and trainer image must "
            "be of the same version."
        ) from e


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rectrain_trainer.child")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--recorder", type=int, required=True)
    parser.add_argument("--until", choices=get_args(Until), default="end", help="stop when it has done this")
    parser.add_argument("--json", action="store_true", help="print what was checked as JSON")
    parser.add_argument("--debug", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
