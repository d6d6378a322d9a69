"""Where a config has its data and its outputs: what a run on a laptop goes by. Pure.

A job's own fields (data.*, checkpoint.*, training.*) stand in their place on a cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rectrain_api.errors import InvalidSpec
from rectrain_api.upstream_config.overrides import look_up


@dataclass(frozen=True)
class DataSet:
    """One of Train and Eval."""

    kind: str
    """SimpleDataSet, MultiScaleDataSet or LMDBDataSet."""
    data_dir: str
    label_files: tuple[str, ...]
    ratios: tuple[float, ...]
    """Part of each label file that an epoch takes; empty: all of all."""


@dataclass(frozen=True)
class ConfigData:
    """As written; None where a config says nothing."""

    train: DataSet | None
    eval: DataSet | None
    save_model_dir: str | None
    pretrained_model: str | None
    checkpoints: str | None
    character_dict_path: str | None
    use_space_char: bool | None
    seed: int | None
    num_workers: int | None
    eval_every_steps: int | None
    save_epoch_step: int | None


def places_of(content: Mapping[str, Any]) -> ConfigData:
    """Raises InvalidSpec when one isn't of its kind."""
    section = content["Global"]
    return ConfigData(
        train=_data_set(content, "Train"),
        eval=_data_set(content, "Eval"),
        save_model_dir=_text(section, "save_model_dir"),
        pretrained_model=_text(section, "pretrained_model"),
        checkpoints=_text(section, "checkpoints"),
        character_dict_path=_text(section, "character_dict_path"),
        use_space_char=_bool(section, "use_space_char"),
        seed=_int(section.get("seed"), "Global.seed"),
        num_workers=_int(look_up(content, ("Train", "loader", "num_workers")), "Train.loader.num_workers"),
        eval_every_steps=_eval_steps(section.get("eval_batch_step")),
        save_epoch_step=_int(section.get("save_epoch_step"), "Global.save_epoch_step"),
    )


def _data_set(content: Mapping[str, Any], part: str) -> DataSet | None:
    section = look_up(content, (part, "dataset"))
    if not isinstance(section, dict):
        return None
    where = f"{part}.dataset"
    files = section.get("label_file_list") or []
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, list) or not all(isinstance(one, str) for one in files):
        raise InvalidSpec(f"{where}.label_file_list must be a list of places.")
    ratios = section.get("ratio_list") or []
    ratios = ratios if isinstance(ratios, list) else [ratios]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in ratios):
        raise InvalidSpec(f"{where}.ratio_list must be a list of numbers.")
    folder = section.get("data_dir") or ""
    if not isinstance(folder, str):
        raise InvalidSpec(f"{where}.data_dir must be one place.")
    kind = str(section.get("name", "SimpleDataSet"))
    return DataSet(kind, folder, tuple(files), tuple(float(one) for one in ratios))


def _text(section: Mapping[str, Any], key: str) -> str | None:
    value = section.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise InvalidSpec(f"Global.{key} must be text, not {value!r}.")


def _bool(section: Mapping[str, Any], key: str) -> bool | None:
    value = section.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidSpec(f"Global.{key} must be true or false, not {value!r}.")


def _int(value: Any, key: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidSpec(f"{key} must be a whole number, not {value!r}.")


def _eval_steps(value: Any) -> int | None:
    """`2000`, or `[first, every]`."""
    return _int(value[1] if isinstance(value, list) and len(value) == 2 else value, "Global.eval_batch_step")
