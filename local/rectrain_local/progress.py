"""How long work is shown: bars on a terminal, an occasional plain line elsewhere; always on stderr.

`cli` makes one and hands it down; the parts that download, build and start only say how far they are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 15.0


class Progress:
    """Notes, and one counted piece of work at a time."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._clock = clock

    def note(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def work(self, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Show work of `total` units (None: unknown); yields a function that takes how many are done."""
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            with Bars(*columns, TextColumn(unit), TimeElapsedColumn(), console=self._console) as bars:
                task = bars.add_task(title, total=total)
                yield lambda done: bars.update(task, completed=done)
            return
        began = last = self._clock()
        self.note(f"{title} …")

        def advance(done: int) -> None:
            nonlocal last
            now = self._clock()
            if now - last >= LINE_EVERY_S:
                last = now
                of_total = f" of {total}" if total is not None else ""
                self.note(f"{title}: {done}{of_total} {unit}, {now - began:.0f} s")

        yield advance
        self.note(f"{title}: done after {self._clock() - began:.0f} s")
