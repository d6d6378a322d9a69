"""Where the supervisors of a run's pods meet: a line of text each way between the first one and every other.

Called by `gang`. The supervisor with rank 0 listens; the others come by the pod's stable name, which leads
to its replacement too. A round of training begins when all are there and none has a process left over, and
is over for all as soon as one is lost: its connection ends, or nothing is heard for `SILENCE_S`.

The lines are JSON, bounded, and nothing more than words: whoever else in the cluster can reach the port can
at worst end a round, which costs steps since the last checkpoint (Paddle's own ports are as open).
"""

import asyncio
import contextlib
import json
import logging
import queue
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

log = logging.getLogger(__name__)

PORT: Final = 29400
ALIVE_S: Final = 3.0
SILENCE_S: Final = 15.0
CONNECT_S: Final = 5.0
RETRY_S: Final = 1.0
LAST_WORD_S: Final = 5.0
LINE_LIMIT: Final = 4096


class Word(StrEnum):
    """What is said. To the supervisor: GO, OVER, DONE, STOP, STALLED, LOST, BROKEN."""

    HELLO = "hello"
    REFUSED = "refused"
    ALIVE = "alive"
    READY = "ready"
    """No process is left here: count me in for the next round."""
    GO = "go"
    """All are ready: start the ranks' processes."""
    STOP = "stop"
    """This pod was told to stop: save a last checkpoint."""
    STALLED = "stalled"
    """Rank 0's process gets no further: write where your own stands."""
    BROKEN = "broken"
    """A process of this pod lost another one, or was killed."""
    FINISHED = "finished"
    """This pod has nothing left to train; it may go."""
    OVER = "over"
    """The round has ended: stop the ranks' processes."""
    LOST = "lost"
    """A pod left the round."""
    DONE = "done"
    """The run has its final record."""


@dataclass(frozen=True)
class Seat:
    """A pod's place among those of a run."""

    pod: int
    """Its number; the first one has rank 0."""
    names: tuple[str, ...]
    """Stable host name of each pod."""
    job_uid: str
    address: str
    """This pod's own IP."""
    port: int = PORT

    @property
    def pods(self) -> int:
        return len(self.names)


LOOPBACK: Final = "127.0.0.1"
ONE_POD: Final = Seat(0, (LOOPBACK,), "", LOOPBACK)
"""That of a run whose ranks are all in one pod, or on one machine."""


@dataclass(frozen=True)
class Event:
    """Something the supervisor should know."""

    word: Word
    why: str = ""
    store: str = ""
    """With GO: `address:port` of the store by which the ranks' processes find each other."""
    left: bool = False
    """With LOST and OVER: a pod left the round, which may be why another one's process failed."""


class Meeting(ABC):
    """`with` it. `wake` is called, from another thread, whenever `events` has something new."""

    def __init__(self, seat: Seat, wake: Callable[[], None]) -> None:
        self.seat = seat
        self._wake = wake
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        return

    @property
    def hears_rank_0(self) -> bool:
        """Whether rank 0's pod is there."""
        return True

    def next_event(self) -> Event | None:
        """The oldest that wasn't taken yet."""
        try:
            return self._events.get_nowait()
        except queue.Empty:
            return None

    @abstractmethod
    def ready(self) -> None:
        """No process is left in this pod: it can go into the next round."""

    @abstractmethod
    def tell(self, word: Word, why: str = "", *, left: bool = False) -> None:
        """Say it to rank 0's pod; from there: to all. Returns when it is on its way, or can't be."""

    def _emit(self, word: Word, why: str = "", store: str = "", *, left: bool = False) -> None:
        self._events.put(Event(word, why, store, left))
        self._wake()


class Alone(Meeting):
    """The one pod of a run: it waits for nobody."""

    def ready(self) -> None:
        self._emit(Word.GO, store=f"{self.seat.address}:{free_port(self.seat.address)}")

    def tell(self, word: Word, why: str = "", *, left: bool = False) -> None:  # noqa: ARG002 - to nobody
        return


class _Talking(Meeting):
    """One side of a meeting of several pods, in a thread of its own."""

    def __init__(self, seat: Seat, wake: Callable[[], None]) -> None:
        super().__init__(seat, wake)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="meeting", daemon=True)
        self._task: asyncio.Task[None] | None = None
        self._is_ready = self._in_round = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._call(lambda: self._task.cancel() if self._task else None)
        self._thread.join(LAST_WORD_S)

    def ready(self) -> None:
        self._call(self._get_ready)

    def tell(self, word: Word, why: str = "", *, left: bool = False) -> None:
        told: Future[None] = Future()

        def begin() -> None:
            task = self._loop.create_task(self._tell(word, why, left))
            task.add_done_callback(lambda _: told.set_result(None))

        self._call(begin)
        with contextlib.suppress(TimeoutError):
            told.result(LAST_WORD_S)

    # -- in the thread

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._run())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        if left := asyncio.all_tasks(self._loop):  # of connections that were closed: they end by themselves
            self._loop.run_until_complete(asyncio.wait(left, timeout=LAST_WORD_S))
        self._loop.close()

    def _call(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what)

    @abstractmethod
    async def _run(self) -> None: ...

    @abstractmethod
    def _get_ready(self) -> None: ...

    @abstractmethod
    async def _tell(self, word: Word, why: str, left: bool) -> None: ...


@dataclass(eq=False)
class _Line:
    """One connection. `words` ends when it does."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: bool = False
    finished: bool = False
    _pulse: asyncio.Task[None] | None = field(default=None)

    def say(self, word: Word, **more: Any) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.write(json.dumps({"say": word, **more}).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next words, beyond signs of life; None when the other side is gone, mute or not one of ours."""
        try:
            while True:
                line = await asyncio.wait_for(self.reader.readline(), SILENCE_S)
                words = json.loads(line) if line.endswith(b"\n") else None
                if not isinstance(words, dict) or words.get("say") != Word.ALIVE:
                    return words if isinstance(words, dict) else None
        except (OSError, ValueError, TimeoutError, RecursionError):
            return None

    def live(self) -> None:
        """Show signs of life from now on."""
        self._pulse = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            self.say(Word.ALIVE)
            await asyncio.sleep(ALIVE_S)

    async def drain(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.drain(), LAST_WORD_S)

    def close(self) -> None:
        if self._pulse:
            self._pulse.cancel()
        self.writer.close()


class Host(_Talking):
    """The side of the pod with rank 0."""

    def __init__(self, seat: Seat, wake: Callable[[], None]) -> None:
        super().__init__(seat, wake)
        self._guests: dict[int, _Line] = {}
        self._lines: set[_Line] = set()
        """Of guests, and of whoever else is there."""

    async def _run(self) -> None:
        server = await self._listen()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for line in self._lines:
                line.close()

    async def _listen(self) -> asyncio.Server:
        complaint = ""
        while True:
            try:
                return await asyncio.start_server(
                    self._welcome, self.seat.address, self.seat.port, limit=LINE_LIMIT
                )
            except OSError as e:
                if str(e) != complaint:
                    complaint = str(e)
                    log.warning("The other pods can't be awaited yet (%s); trying on.", e)
                await asyncio.sleep(RETRY_S)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(reader, writer)
        self._lines.add(line)
        try:
            words = await line.hear()
            pod, why = self._number_of(words)
            if pod is None:
                line.say(Word.REFUSED, why=why)
                await line.drain()
                return
            line.live()
            self._seat_guest(pod, line)
            try:
                while (words := await line.hear()) is not None and self._guests.get(pod) is line:
                    self._heard(pod, line, words)
            finally:
                if self._guests.get(pod) is line:
                    del self._guests[pod]
                    self._missed(pod, line)
        finally:
            self._lines.discard(line)
            line.close()

    def _number_of(self, words: dict[str, Any] | None) -> tuple[int | None, str]:
        """The number of the pod that a newcomer is, or why it may not come in."""
        if words is None or words.get("say") != Word.HELLO:
            return None, "it didn't say who it is"
        if words.get("job") != self.seat.job_uid:
            return None, "it is of another Job"
        pod = words.get("pod")
        if not isinstance(pod, int) or not 0 < pod < self.seat.pods:
            return None, f"pod {pod} isn't one of the others (1 to {self.seat.pods - 1})"
        return pod, ""

    def _seat_guest(self, pod: int, line: _Line) -> None:
        old = self._guests.get(pod)
        self._guests[pod] = line
        log.info("Pod %d is here.", pod)
        if old is not None:
            old.close()
            self._missed(pod, old)
        line.finished = self._in_round  # it isn't in this round: should it go, nothing is lost

    def _heard(self, pod: int, line: _Line, words: dict[str, Any]) -> None:
        match words.get("say"):
            case Word.READY:
                line.ready = True
                self._go_if_all_are_ready()
            case Word.STOP if self._in_round:
                self._emit(Word.STOP, f"Pod {pod} was told to stop")
            case Word.BROKEN if self._in_round:
                self._end_round(Word.BROKEN, f"a process of pod {pod} was lost, or lost another one")
            case Word.FINISHED:
                line.finished = True

    def _missed(self, pod: int, line: _Line) -> None:
        if self._in_round and not line.finished:
            self._end_round(Word.LOST, f"pod {pod} went away")

    def _end_round(self, word: Word, why: str) -> None:
        self._in_round = False
        left = word is Word.LOST
        self._say_all(Word.OVER, why=why, left=left)
        self._emit(word, why, left=left)

    def _get_ready(self) -> None:
        self._is_ready = True
        missing = [pod for pod in range(1, self.seat.pods) if pod not in self._guests]
        if missing:
            log.info("Waiting for pod %s.", ", ".join(map(str, missing)))
        self._go_if_all_are_ready()

    def _go_if_all_are_ready(self) -> None:
        lines = list(self._guests.values())
        if not self._is_ready or len(lines) < self.seat.pods - 1 or not all(line.ready for line in lines):
            return
        self._is_ready, self._in_round = False, True
        port = free_port(self.seat.address)
        for line in lines:
            line.ready = line.finished = False
            line.say(Word.GO, port=port)
        self._emit(Word.GO, store=f"{self.seat.address}:{port}")

    def _say_all(self, word: Word, **more: Any) -> None:
        for line in self._guests.values():
            line.say(word, **more)

    async def _tell(self, word: Word, why: str, left: bool) -> None:
        self._in_round = self._in_round and word is Word.STALLED
        self._say_all(word, why=why, left=left)
        for line in list(self._guests.values()):
            await line.drain()


class Guest(_Talking):
    """Every other pod's side."""

    def __init__(self, seat: Seat, wake: Callable[[], None]) -> None:
        super().__init__(seat, wake)
        self._line: _Line | None = None

    @property
    def hears_rank_0(self) -> bool:
        return self._line is not None

    async def _run(self) -> None:
        refused = ""
        while True:
            line = await self._arrive()
            if line is not None:
                try:
                    said = await self._listen(line)
                finally:
                    self._line = None
                    line.close()
                if said and said != refused:
                    log.warning("Pod 0 refuses this one: %s. Trying on.", said)
                refused = said
                if self._in_round:
                    self._in_round = False
                    self._emit(Word.LOST, "pod 0 went away", left=True)
            await asyncio.sleep(RETRY_S)

    async def _arrive(self) -> _Line | None:
        """A connection to rank 0's pod, wherever its name leads now."""
        opening = asyncio.open_connection(self.seat.names[0], self.seat.port, limit=LINE_LIMIT)
        try:
            line = _Line(*await asyncio.wait_for(opening, CONNECT_S))
        except (OSError, TimeoutError):
            return None
        line.say(Word.HELLO, job=self.seat.job_uid, pod=self.seat.pod)
        if self._is_ready:
            line.say(Word.READY)
        line.live()
        self._line = line
        return line

    async def _listen(self, line: _Line) -> str:
        """Until the connection ends; why we were refused, if that is why."""
        while (words := await line.hear()) is not None:
            why = str(words.get("why", ""))
            match words.get("say"):
                case Word.REFUSED:
                    return why
                case Word.GO if self._is_ready and isinstance(words.get("port"), int):
                    self._is_ready, self._in_round = False, True
                    host = line.writer.get_extra_info("peername")[0]
                    self._emit(Word.GO, store=f"{host}:{words['port']}")
                case Word.STALLED if self._in_round:
                    self._emit(Word.STALLED, why)
                case Word.OVER if self._in_round:
                    self._in_round = False
                    self._emit(Word.OVER, why, left=words.get("left") is True)
                case Word.DONE:
                    self._in_round = False
                    self._emit(Word.DONE)
        return ""

    def _get_ready(self) -> None:
        self._is_ready = True
        if self._line:
            self._line.say(Word.READY)

    async def _tell(self, word: Word, why: str, left: bool) -> None:
        if self._line:
            self._line.say(word, why=why, left=left)
            await self._line.drain()


def meet(seat: Seat, wake: Callable[[], None]) -> Meeting:
    """This pod's side of the meeting."""
    if seat.pods == 1:
        return Alone(seat, wake)
    return Host(seat, wake) if seat.pod == 0 else Guest(seat, wake)


def free_port(address: str) -> int:
    """A port that nobody listens on just now."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])
