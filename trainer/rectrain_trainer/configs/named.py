"""A model by what its user names: a preset, a name of PaddleOCR's, a config's file, or a job's manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from rectrain_api import KIND
from rectrain_api.errors import InputMissing, InvalidSpec, UsageError
from rectrain_api.plan import (
    ConfigOrigin,
    EvalInterval,
    ModelPlan,
    RunPlan,
    TrainingPlan,
)
from rectrain_api.presets import Preset, load
from rectrain_api.upstream_config import Note, read_config
from rectrain_data.transfer.files import local_error
from rectrain_trainer.manifest import read_manifest

_FILES: Final = (".yml", ".yaml")


@dataclass(frozen=True)
class Named:
    """A model, resolved, and what it trains with where nothing else is said."""

    model: ModelPlan
    epochs: int
    batch_size: int
    learning_rate: float
    dictionary: str | None
    notes: tuple[Note, ...] = ()
    """Of a config: what decides nothing."""

    def to_dict(self) -> dict[str, Any]:
        """As YAML shows it: plain types, in the order of a preset's file."""
        return {
            "name": self.model.preset,
            "image_shape": self.model.image_shape,
            "padded": self.model.padded,
            "max_text_length": self.model.max_text_length,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "dictionary": self.dictionary,
            "config": self.model.config,
        }

    def training(self, seed: int = 0) -> TrainingPlan:
        """For what is built of it without a run."""
        return TrainingPlan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            eval_interval=EvalInterval(every=1, unit="epochs"),
            seed=seed,
            deterministic=False,
        )


def find(name: str, overrides: Mapping[str, str] | None = None) -> Named:
    """What is named. A file that is there wins over a preset of its name.

    Raises InputMissing, InvalidSpec, UsageError.
    """
    path = Path(name)
    if path.is_file():
        return _of_file(path, overrides or {})
    if path.suffix in _FILES and (len(path.parts) > 1 or not _is_preset(name)):
        raise InputMissing(f"There is no file {name}: correct the path, or name a preset.")
    preset = load(name)
    return _of_preset(preset, preset.configured(overrides or {}))


def parse_overrides(given: list[str]) -> dict[str, str]:
    """`KEY=VALUE` each. Raises UsageError."""
    result = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"-o {one!r} must be KEY=VALUE, such as -o Global.epoch_num=10.")
        result[key.strip()] = value
    return result


def _is_preset(name: str) -> bool:
    try:
        load(name)
    except InvalidSpec:
        return False
    return True


def _of_file(path: Path, overrides: Mapping[str, str]) -> Named:
    try:
        content = path.read_bytes()
    except OSError as wrong:
        raise local_error(wrong, path) from wrong
    if _is_manifest(content):
        if overrides:
            raise UsageError(f"{path} is a job's manifest, which has overrides of its own (model.overrides).")
        return _of_manifest(path)
    read = read_config(content, str(path), overrides)
    named = _of_preset(read.preset, read.preset.configured({}))
    origin = ConfigOrigin(source=str(path), sha256=read.sha256)
    return replace(named, notes=read.notes, model=named.model.model_copy(update={"origin": origin}))


def _is_manifest(content: bytes) -> bool:
    """Whether it says so on a line of its own; what is wrong with it is told by who reads it."""
    return any(line.split() == [b"kind:", KIND.encode()] for line in content.splitlines())


def _of_manifest(path: Path) -> Named:
    plan = read_manifest(path).plan
    if not isinstance(plan, RunPlan):
        raise InvalidSpec(f"{path} names a config in S3 (model.config.uri): download it, and name that file.")
    training = plan.training
    return Named(
        plan.model, training.epochs, training.batch_size, training.learning_rate, plan.data.dictionary
    )


def _of_preset(preset: Preset, config: dict[str, Any]) -> Named:
    model = ModelPlan(
        preset=preset.name,
        image_shape=preset.image_shape,
        padded=preset.padded,
        max_text_length=preset.max_text_length,
        config=config,
    )
    return Named(model, preset.epochs, preset.batch_size, preset.learning_rate, preset.dictionary)


def to_yaml(document: dict[str, Any]) -> str:
    """As an editor shows it: short lists on one line."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Lists of single values on one line."""


def _list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = not any(isinstance(one, dict) for one in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _list)
