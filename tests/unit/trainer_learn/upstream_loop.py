"""Upstream's own training code, unchanged, over our loader: its loop (tools/program.py) for the golden test,
its script (tools/train.py) for the loop benchmark."""

import copy
import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from rectrain_trainer import upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.loader import Loader
from rectrain_trainer.model import Learner, dictionary_section


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


def run_train_script(
    recipe: Recipe, loader: Loader, folder: Path, on_loss: Callable[[Any], None], *, metric: bool
) -> None:
    """Run `main` of upstream's tools/train.py to the end, with its own builders; only the loader is ours.

    `metric`: its accuracy on every training batch, which its recognition configs switch on.
    """
    upstream.load()
    script: Any = importlib.import_module("tools.train")
    build_loss = script.build_loss

    def build_noted_loss(section: Any) -> Callable[[Any, Any], Any]:
        loss = build_loss(section)

        def noted(predictions: Any, batch: Any) -> Any:
            result = loss(predictions, batch)
            on_loss(result["loss"])
            return result

        return noted

    folder.mkdir(parents=True, exist_ok=True)
    dictionary = dictionary_section(recipe.characters, folder, use_space_char=recipe.use_space_char)
    config = {
        "Global": {
            **dictionary,
            "log_smooth_window": 20,
            "epoch_num": recipe.epochs,
            "print_batch_step": 10,
            "eval_batch_step": 10**9,
            "save_epoch_step": 10**9,
            "save_model_dir": str(folder),
            "cal_metric_during_train": metric,
            "distributed": False,
        },
        "Architecture": copy.deepcopy(recipe.architecture) | {"model_type": "rec"},
        "Loss": copy.deepcopy(recipe.loss),
        "Optimizer": copy.deepcopy(recipe.optimizer),
        "PostProcess": {"name": "CTCLabelDecode"},
        "Metric": {"name": "RecMetric", "main_indicator": "acc"},
        "Eval": None,
        "profiler_options": None,
    }
    with mock.patch.multiple(
        script,
        build_dataloader=lambda *_: PaddleBatches(loader),
        set_signal_handlers=lambda: None,
        build_loss=build_noted_loss,
    ):
        script.main(config, "cpu", logging.getLogger("upstream-loop"), None, recipe.seed)
