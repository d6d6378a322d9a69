"""The only door to PaddleOCR's training code: where it is found, what differs, what it must not do.

Called by model, loader, export and the tests that compare with upstream's own loop. The code is a checkout
of 3.7 named by PADDLEOCR_HOME (the GPU image has one), or else PyPI's `unstructured_paddleocr` (2.10's).

What is kept from it:
- printing on stdout and a logger of its own that does (our stdout is data);
- signal handlers that SIGKILL the process group on SIGTERM: whatever it installs is put back, and its
  `set_signal_handlers` does nothing;
- operators by any name: only those in `OPERATORS` are built (upstream eval's the name).
"""

import contextlib
import copy
import functools
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.overrides import AUGMENTS
from rectrain_trainer import hgnetv2

OPERATORS: Final = AUGMENTS | {
    "DecodeImage",
    "CTCLabelEncode",
    "MultiLabelEncode",
    "RecResizeImg",
    "SVTRRecResizeImg",
    "KeepKeys",
}

Operator = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Upstream:
    """What of upstream's code is used; the same whichever version stands behind it."""

    home: Path
    build_model: Callable[[dict[str, Any]], Any]
    build_loss: Callable[[dict[str, Any]], Any]
    build_post_process: Callable[[dict[str, Any], dict[str, Any]], Any]
    build_metric: Callable[[dict[str, Any]], Any]
    _build_optimizer: Callable[..., tuple[Any, ...]]
    _create_operators: Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], list[Operator]]

    def build_optimizer(
        self, config: dict[str, Any], *, epochs: int, steps: int, model: Any
    ) -> tuple[Any, Any]:
        """(optimizer, learning rate scheduler), `steps` per epoch. 3.7 adds a third: it must be unused."""
        optimizer, rate, *rest = self._build_optimizer(
            config, epochs=epochs, step_each_epoch=steps, model=model
        )
        if any(extra is not None for extra in rest):
            raise InvalidSpec("Optimizer.weight_decay: a schedule is not supported; give a number.")
        return optimizer, rate

    def create_operators(self, ops: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> list[Operator]:
        """Upstream's operators, in order; names outside the allow-list raise InvalidSpec."""
        for op in ops:
            unknown = sorted(set(op) - OPERATORS)
            if unknown or len(op) != 1:
                raise InvalidSpec(
                    f"operator {', '.join(unknown) or dict(op)!r} is not one that RecTrain runs: "
                    f"use {', '.join(sorted(OPERATORS))}."
                )
        return self._create_operators(copy.deepcopy(list(ops)), common)  # it writes into them


def locate() -> Path:
    """The folder that holds `ppocr/` and `tools/`. Raises InputMissing naming both ways to get one."""
    named = os.environ.get("PADDLEOCR_HOME")
    if named:
        home = Path(named)
        if not (home / "ppocr" / "modeling").is_dir():
            raise InputMissing(
                f"PADDLEOCR_HOME={named} holds no ppocr/modeling: point it at a checkout of PaddleOCR "
                "(its PyPI package has no training code), or unset it."
            )
        return home
    spec = importlib.util.find_spec("unstructured_paddleocr")
    if spec is None or spec.origin is None:
        raise InputMissing(
            "PaddleOCR's training code isn't installed: pip install --no-deps -r trainer/upstream.txt, "
            "or set PADDLEOCR_HOME to a checkout of PaddleOCR."
        )
    return Path(spec.origin).parent


@functools.cache
def load() -> Upstream:
    """Import upstream's code once, quietly, and without its habits. Raises InputMissing."""
    home = locate()
    with _quiet(), _signals_kept(), _needs_named(home):
        _put_on_path(home)
        _tame_logger()
        data: Any = importlib.import_module("ppocr.data")
        data.set_signal_handlers = lambda: None
        hgnetv2.teach(importlib.import_module("ppocr.modeling.backbones.rec_pphgnetv2"))
        return Upstream(
            home=home,
            build_model=importlib.import_module("ppocr.modeling.architectures").build_model,
            build_loss=importlib.import_module("ppocr.losses").build_loss,
            build_post_process=importlib.import_module("ppocr.postprocess").build_post_process,
            build_metric=importlib.import_module("ppocr.metrics").build_metric,
            _build_optimizer=importlib.import_module("ppocr.optimizer").build_optimizer,
            _create_operators=data.create_operators,
        )


def _put_on_path(home: Path) -> None:
    """First on the path: `tools` is a name that others use too."""
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))


def _tame_logger() -> None:
    """Register its logger before it does, so that no handler on stdout is ever added."""
    upstream_logging = importlib.import_module("ppocr.utils.logging")
    upstream_logging.logger_initialized["ppocr"] = True
    logging.getLogger("ppocr").setLevel(logging.ERROR)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its import warns of ccache, encryption and more; albumentations would look for a newer release."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _needs_named(home: Path) -> Iterator[None]:
    """3.7 imports packages that 2.10 doesn't (lmdb): a checkout can need more than is installed."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise InputMissing(
            f"PaddleOCR's training code in {home} needs the Python package {missing.name!r}, which isn't "
            "installed: add it to the image, or unset PADDLEOCR_HOME."
        ) from missing


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Whatever handlers an import installs, ours are back afterwards (only the main thread can)."""
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            if signal.getsignal(sig) is not handler and threading.current_thread() is threading.main_thread():
                signal.signal(sig, handler)
