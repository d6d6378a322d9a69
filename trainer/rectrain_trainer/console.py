"""What a person sees of a run: a progress bar on a terminal, plain dated lines in a pod.

Called by the child, first thing. Everything goes to stderr: stdout is for data.
"""

import logging
import os
import sys
import threading
import time
from typing import Final, TextIO

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from rectrain_api.errors import Interrupted
from rectrain_api.report import Stage
from rectrain_trainer.board import Board

log = logging.getLogger("rectrain_trainer")

LINE_EVERY_S: Final = 10.0
PLAIN: Final = "%(asctime)s %(levelname)s %(message)s"


class _LetsThrough(logging.Handler):
    """Being told to stop while a line is written isn't an error of logging's."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging
        """Called within the `except` of who writes."""
        if isinstance(sys.exc_info()[1], Interrupted):
            raise  # noqa: PLE0704 - of the caller's
        super().handleError(record)


class _Plain(_LetsThrough, logging.StreamHandler[TextIO]):
    pass


class _Rich(_LetsThrough, RichHandler):
    pass


def set_up_logging(*, debug: bool, beside: int | None = None) -> Console | None:
    """Our lines to stderr; a console when there is a terminal. Before OpenCV is loaded: it warns of images
    that are named by us. A rank `beside` the first one of its pod only warns, and says which it is.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    console = Console(stderr=True) if sys.stderr.isatty() and beside is None else None
    handler: logging.Handler
    if console:
        handler = _Rich(console=console, show_path=False, markup=False, log_time_format="[%X]")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = _Plain(sys.stderr)
        named = PLAIN if beside is None else PLAIN.replace("%(message)s", f"rank {beside}: %(message)s")
        handler.setFormatter(logging.Formatter(named))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    usual = logging.INFO if beside is None else logging.WARNING
    for name in ("rectrain_trainer", "rectrain_data"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else usual)
    return console


class Narrator:
    """Follows the board. With a terminal: one live bar. Without: a line a stage, and one now and then."""

    def __init__(self, board: Board, console: Console | None) -> None:
        self._board = board
        self._stage: Stage | None = None
        self._message = ""
        self._said_at = 0.0
        self._lock = threading.Lock()
        self._bar = _bar(console) if console else None
        self._task = self._bar.add_task("", total=100) if self._bar else None
        board.listen(self._changed)

    def start(self) -> None:
        """Show the bar, if there is one."""
        if self._bar:
            self._bar.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()

    def _changed(self, _at_once: bool) -> None:
        board = self._board
        if board.ended:
            return  # the ending is told by who ends it
        with self._lock:
            new_stage, self._stage = board.stage != self._stage, board.stage
            new_message = board.message not in ("", self._message)
            if self._bar and self._task is not None:
                self._bar.update(self._task, description=picture(board), completed=board.progress.percent)
            if new_message:
                self._message = board.message
            if new_stage or time.monotonic() - self._said_at >= LINE_EVERY_S:
                self._said_at = time.monotonic()
                log.log(logging.DEBUG if self._bar else logging.INFO, "%s", picture(board))
            elif new_message and not self._bar:
                log.info("%s", board.message)


def picture(board: Board) -> str:
    """One line: stage, how far, how fast, how good."""
    progress, metrics = board.progress, board.metrics
    parts = [board.stage.value]
    if progress.steps:
        parts.append(f"epoch {progress.epoch_text}, step {progress.step}/{progress.steps}")
    if progress.samples_per_second:
        parts.append(f"{progress.samples_per_second:.0f} images/s")
    if metrics and metrics.loss is not None:
        parts.append(f"loss {metrics.loss:.4f}")
    if metrics and metrics.accuracy_text:
        parts.append(f"accuracy {metrics.accuracy_text}")
    if progress.eta:
        parts.append(f"{progress.eta} left")
    if board.message:
        parts.append(board.message)
    return ", ".join(parts)


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=console,
        transient=True,
        expand=True,
    )
