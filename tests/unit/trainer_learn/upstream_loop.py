"""Upstream's own training loop (tools/program.py, unchanged) over our loader. For the golden test and the
loop benchmark."""

import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rectrain_trainer import upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.loader import Loader
from rectrain_trainer.model import Learner


class PaddleBatches:
    """Our loader with the face that upstream's loop expects: epochs counted by how often it is iterated."""

    dataset = SimpleNamespace(need_reset=False)

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Any]]:
        import paddle

        epoch, self.epoch = self.epoch, self.epoch + 1
        for batch in self.loader.batches(epoch):
            yield [paddle.to_tensor(part) for part in batch]


def train_upstream(
    recipe: Recipe, learner: Learner, loader: Loader, folder: Path, on_loss: Callable[[Any], None]
) -> None:
    """Run `tools.program.train` to the end; `on_loss` gets each step's loss tensor."""
    upstream.load()
    program = importlib.import_module("tools.program")

    def loss(predictions: Any, batch: Any) -> Any:
        result = learner.loss(predictions, batch)
        on_loss(result["loss"])
        return result

    config = {
        "Global": {
            "log_smooth_window": 20,
            "epoch_num": recipe.epochs,
            "print_batch_step": 10,
            "eval_batch_step": [0, 10**9],
            "save_epoch_step": 10**9,
            "save_model_dir": str(folder),
            "distributed": False,
        },
        "Architecture": recipe.architecture,
        "Loss": recipe.loss,
        "profiler_options": None,
    }
    program.train(
        config=config,
        train_dataloader=PaddleBatches(loader),
        valid_dataloader=[],
        device="cpu",
        model=learner.model,
        loss_class=loss,
        optimizer=learner.optimizer,
        lr_scheduler=learner.rate,
        post_process_class=None,
        eval_class=SimpleNamespace(main_indicator="acc"),
        pre_best_model_dict={},
        logger=logging.getLogger("upstream-loop"),
        step_pre_epoch=len(loader),
    )
