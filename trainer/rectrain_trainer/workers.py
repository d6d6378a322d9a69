"""A small pool of processes for the loader: ordered results, bounded prefetch, no shared memory.

Called by loader alone. Workers come from a fork server (a clean, single-threaded process that imported the
loader once): forking the trainer itself would copy its threads' locks and its signal handlers. Task k goes
to worker k mod N over its own pipe and results are taken in that order, so nothing needs sorting.

A worker ends when its pipe does. The kernel closes that whichever way the trainer ends, SIGKILL included, so
no worker outlives it. SIGTERM and SIGINT to the whole group are left to the trainer, which may still want
batches up to its last step. Batches travel through pipes: nothing can be left behind in /dev/shm.
"""

import contextlib
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Final

from rectrain_api.errors import InternalError, RectrainError

_JOIN_S: Final = 10.0


class WorkerPool:
    """`size` processes, each holding `build(*arguments)`, a callable for one task."""

    def __init__(
        self, build: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], size: int
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["rectrain_trainer.workers_preload"])
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for number in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, build, arguments), name=f"loader-{number}", daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def map(self, tasks: Iterable[Any], *, ahead: int) -> Iterator[Any]:
        """Results in the order of `tasks`, at most `ahead` of them under way for each worker."""
        todo = iter(tasks)
        sent = taken = 0
        try:
            for task in islice(todo, ahead * len(self._pipes)):
                self._send(sent, task)
                sent += 1
            while taken < sent:
                taken += 1  # before: an answer that is an error has been taken too
                result = self._receive(taken - 1)
                for task in islice(todo, 1):
                    self._send(sent, task)
                    sent += 1
                yield result
        finally:
            while taken < sent:  # stopped early: leave the pipes empty for the next epoch
                taken += 1
                with contextlib.suppress(RectrainError):
                    self._receive(taken - 1)

    def _send(self, number: int, task: Any) -> None:
        try:
            self._pipes[number % len(self._pipes)].send(task)
        except OSError:
            self._died(number)

    def _receive(self, number: int) -> Any:
        try:
            ok, result = self._pipes[number % len(self._pipes)].recv()
        except (EOFError, OSError):
            self._died(number)
        if not ok:
            raise result
        return result

    def _died(self, number: int) -> None:
        process = self._processes[number % len(self._processes)]
        process.join(_JOIN_S)
        raise InternalError(
            f"Loader worker {process.name} ended (exit code {process.exitcode}): if it was killed, "
            "memory ran out; give the pod more, or fewer training.workers."
        )

    def close(self) -> None:
        """End the workers and wait for them. Safe to call twice."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_JOIN_S)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []


def _serve(pipe: Connection, build: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    """A worker's life: build once, then answer tasks until the trainer closes the pipe or dies."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        try:
            work = build(*arguments)
        except Exception as failed:
            pipe.recv()
            pipe.send((False, _portable(failed)))
            return
        while True:
            task = pipe.recv()
            try:
                answer = (True, work(task))
            except Exception as failed:
                answer = (False, _portable(failed))
            pipe.send(answer)


def _portable(failed: Exception) -> RectrainError:
    """An error that can travel: ours as it is (without its cause), others as InternalError."""
    if isinstance(failed, RectrainError):
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(failed))  # noqa: S301 - of our own making
            return failed
    return InternalError(f"A loader worker failed: {type(failed).__name__}: {failed}")
