"""A process of its own, for what mustn't touch this one: its memory, its random state, its life.

Used by the trial and the smoke test. `start` it early: it imports Paddle and upstream's code while this
process does other things, then waits for what it is to do. It ends with the `with` block, whichever way that
is left (an interrupt among them), and with this process. What it says goes to the log on --debug alone.
"""

import contextlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final

from rectrain_api import errors
from rectrain_api.errors import InternalError, InvalidSpec, RectrainError

log = logging.getLogger(__name__)

Work = Callable[[], dict[str, Any]]
"""What is to be done there: picklable, and its result is JSON."""
_TAIL: Final = 4000
_SAID: Final = 300
_OF_MEMORY: Final = (
    "cannot allocate memory",  # the loader of shared libraries
    "resourceexhausted",  # Paddle
    "bad_alloc",
    "out of memory",
    "alloc_failed",  # cuBLAS, cuDNN
    "thread creation failed",  # OpenMP, when there is no room for a stack
)


@dataclass(frozen=True)
class Answer:
    """How the work ended."""

    content: dict[str, Any] | None
    """`result` of the work, or `error` and `said` of what it raised; None if there was no answer at all."""
    exit_code: int
    """Negative: the signal that ended it."""
    printed: str
    """Its last lines."""

    @property
    def out_of_memory(self) -> bool:
        """Whether memory ran out. Under a limit Paddle says so, or doesn't look and crashes."""
        if self.content is None:
            return self.exit_code < 0 or _speaks_of_memory(self.printed)
        error = self.content.get("error", "")
        return error == "MemoryError" or _speaks_of_memory(self.content.get("said", ""))

    @property
    def crash(self) -> str | None:
        """Name of the signal that ended it, such as SIGSEGV."""
        return signal.Signals(-self.exit_code).name if self.exit_code < 0 else None

    def result(self) -> dict[str, Any]:
        """What the work returned.

        Raises what it raised, if that is one of ours; else InvalidSpec with Paddle's words, or InternalError.
        """
        if self.content is None:
            how = self.crash or f"exit code {self.exit_code}"
            raise InternalError(
                f"A process that tries the model ended without an answer ({how}): --debug shows what it said."
            )
        if "result" in self.content:
            result: dict[str, Any] = self.content["result"]
            return result
        kind, said = self.content["error"], self.content["said"]
        ours = getattr(errors, kind, None)
        if isinstance(ours, type) and issubclass(ours, RectrainError):
            raise ours(said)
        raise InvalidSpec(f"The model can't be trained with this configuration ({kind}: {shortened(said)}).")


class Apart:
    """`with` it; then `start`, `ask` once, `answer` once."""

    def __init__(self, gpus: int, *, deterministic: bool) -> None:
        """The device, as the trainer itself has it."""
        self._arguments = ["--gpus", str(gpus), *(["--deterministic"] if deterministic else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None

    def start(self) -> None:
        """From the thread that lives as long as this process: the other one ends with it."""
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "rectrain_trainer.apart_process"),
                *("--parent", str(os.getpid())),
                *self._arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )

    def ask(self, work: Work) -> None:
        """What to do. Returns when it has been read, or can be."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: its answer says how
            process.stdin.write(pickle.dumps(work))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdin = None

    def answer(self, limit_s: float | None = None) -> Answer:
        """How it went. Raises TimeoutError."""
        process = self._process
        assert process is not None
        try:
            told, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as e:
            raise TimeoutError(f"no answer within {limit_s} s") from e
        printed = self._tail()
        log.debug("A process apart ended with %d and said:\n%s", process.returncode, printed)
        content = json.loads(told) if told else None
        return Answer(content, process.returncode, printed)

    def close(self) -> None:
        """End it, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if self._printed is not None:
            self._printed.close()
        self._process = self._printed = None

    def _tail(self) -> str:
        assert self._printed is not None
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(size - _TAIL, 0))
        return self._printed.read().decode(errors="replace").strip()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def shortened(said: str) -> str:
    """Paddle's words without its hints, its own source lines and its traceback."""
    words = said.partition("[Hint")[0].partition("(at /")[0]
    words = " ".join(words.split()).rstrip(" .:")
    return words if len(words) <= _SAID else f"{words[:_SAID]}…"


def _speaks_of_memory(said: str) -> bool:
    return any(words in said.lower() for words in _OF_MEMORY)
