"""A lane: an S3 service of its own, which may be killed, and the data set in it. Lanes go side by side, the
runs of a lane one after the other.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from rectrain_data.transfer import S3Options, open_store
from rectrain_local.s3 import SeaweedS3
from tests.support.trainer import Place, Trainer, environment, new_place, upload_packed


class Errands:
    """What lanes have the main thread do: a service lives as long as the thread that started it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()

    def run(self, errand: Callable[[], None]) -> None:
        """From a lane: have it done, and wait."""
        done: Future[None] = Future()
        self._queue.put((errand, done))
        done.result()

    def serve(self, until: Callable[[], bool]) -> None:
        """In the main thread: do what comes."""
        while not until():
            try:
                errand, done = self._queue.get(timeout=0.1)
            except Empty:
                continue
            try:
                done.set_result(errand())
            except BaseException as e:
                done.set_exception(e)


@dataclass
class Lane:
    """`open` once, then runs at `new_place()`s."""

    folder: Path
    s3: SeaweedS3
    errands: Errands
    packed: str = ""
    bucket: str = ""
    options: S3Options = field(init=False)

    def open(self, samples: Sequence[tuple[str, bytes]]) -> None:
        self.s3.start()
        self.options = S3Options.from_environment(self.s3.env)
        self.bucket = self.s3.make_bucket("chaos")
        store = open_store(f"{self.bucket}/set", self.options)
        self.packed = upload_packed(samples, self.folder / "set", store)

    def new_place(self) -> Place:
        return new_place(self.bucket, self.options)

    def new_trainer(self, name: str) -> Trainer:
        folder = self.folder / name
        folder.mkdir()
        return Trainer(folder, environment(self.s3.env))

    def cut_power(self, away_s: float) -> None:
        """SIGKILL for the service, and a while without it."""
        self.s3.stop(kill=True)
        time.sleep(away_s)
        self.errands.run(self.s3.restart)
