"""A config of PaddleOCR as a run on this machine: `rectrain-trainer run -c config.yml -o Key=value`.

Called by the command line. The config's own places are used: data is read where it lies, and the run is kept
in `Global.save_model_dir`, as in S3 elsewhere. Places that aren't absolute begin at the current folder, as in
PaddleOCR. Nothing here needs a cluster, S3 or a network.
"""

import errno
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from rectrain_api import API_VERSION, GROUP, KIND
from rectrain_api.errors import InputMissing, InvalidSpec, PermissionRefused, UsageError
from rectrain_api.plan import ConfigText, DataPlan, LabelFiles, PretrainedPlan, RunPlan, plan
from rectrain_api.records import LOG_PREFIX
from rectrain_api.spec import WEIGHTS_SUFFIX, RecTrainingJob
from rectrain_api.upstream_config import DataSet, UpstreamConfig, read_config
from rectrain_data.dictionary import builtin_names
from rectrain_data.transfer import local_uri

_NOWHERE: Final = "s3://here/here"
"""Stands in a manifest for what is local: the plan has the places themselves."""
_TOLD_HERE: Final = frozenset(
    {
        "Eval",
        "Global.character_dict_path",
        "Global.checkpoints",
        "Global.distributed",
        "Global.eval_batch_epoch",
        "Global.eval_batch_step",
        "Global.pretrained_model",
        "Global.save_epoch_step",
        "Global.save_model_dir",
        "Global.seed",
        "Global.use_gpu",
        "Train.dataset",
        "Train.dataset.ratio_list",
        "Train.loader",
    }
)
"""What a job's own fields replace on a cluster, and a config decides here."""
_KEY_OF: Final = {
    "spec.training.evalInterval": "Global.eval_batch_step",
    "spec.training.seed": "Global.seed",
    "spec.training.workers": "Train.loader.num_workers",
}
"""Where a config says what a field of the job gets."""


def overrides_of(pairs: Iterable[str]) -> dict[str, str]:
    """`Key.sub=value`, as PaddleOCR's -o takes them. Raises UsageError."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"-o {pair} isn't Key=value: write it like -o Global.epoch_num=10.")
        found[key.strip()] = value.strip()
    return found


def plan_of_config(path: Path, overrides: Mapping[str, str], gpus: int) -> RunPlan:
    """The run plan of a config; `gpus` are what this machine has.

    Raises:
        InputMissing: the config, or a place that it names, isn't there.
        InvalidSpec: it can't be trained here; an override names no key.
        PermissionRefused: the run's folder can't be written.
    """
    text = _text_of(path)
    config = read_config(text, str(path), overrides)
    place = _place_of(config)
    notes = [str(note) for note in config.notes if note.key not in _TOLD_HERE]
    notes.append(
        "Global.save_epoch_step is replaced by a checkpoint every 5 minutes and at each better accuracy"
    )
    taken = _devices(config.content["Global"], gpus, notes)
    made = plan(_job(config, overrides, place, taken), config=ConfigText(text, str(path)))
    model: dict[str, Any] = {"pretrained": _pretrained(config, place, notes)}
    if made.model.origin is not None:
        model["origin"] = made.model.origin.model_copy(update={"notes": notes})
    resolved = made.model_copy(
        update={
            "model": made.model.model_copy(update=model),
            "data": _data(config, made.data),
            "checkpoint": made.checkpoint.model_copy(update={"uri": local_uri(place)}),
            "gpus": taken,
        }
    )
    _make_writable(place)  # last, so that a command that is refused leaves nothing
    return resolved


def gpus_here(env: Mapping[str, str] | None = None) -> int:
    """GPUs that the driver shows, as far as CUDA_VISIBLE_DEVICES leaves them. Paddle is too large to ask."""
    there = len([p for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)])
    named = (os.environ if env is None else env).get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return there
    shown = itertools.takewhile(lambda one: one and not one.startswith("-"), map(str.strip, named.split(",")))
    return min(there, len([*shown]))  # CUDA ends at the first that is none, such as -1


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise InputMissing(f"The config {path} can't be read ({e.strerror}): correct the path.") from e
    except UnicodeDecodeError as e:
        raise InvalidSpec(f"{path} isn't UTF-8 text: it must be a config of PaddleOCR (.yml).") from e


def _job(config: UpstreamConfig, overrides: Mapping[str, str], place: Path, gpus: int) -> RecTrainingJob:
    """What the config says of training, as a manifest would."""
    data, section = config.data, config.content["Global"]
    training: dict[str, Any] = {"seed": data.seed or 0, "workers": data.num_workers}
    if section.get("eval_batch_epoch"):
        training["evalInterval"] = f"{section['eval_batch_epoch']} epochs"
    elif data.eval_every_steps:
        training["evalInterval"] = data.eval_every_steps
    return _validated(
        {
            "apiVersion": f"{GROUP}/{API_VERSION}",
            "kind": KIND,
            "metadata": {"name": _name_of(place), "namespace": "local"},
            "spec": {
                "model": {
                    "config": {"configMap": {"name": "here", "key": "config.yml"}},
                    "overrides": dict(overrides),
                },
                "data": {
                    "train": _NOWHERE,
                    "eval": _NOWHERE if data.eval else None,
                    "validation": "Warn",
                },
                "training": training,
                "checkpoint": {"uri": _NOWHERE},
                "replicas": {"gpusPerNode": min(gpus, 1)},
            },
        }
    )


def _validated(job: dict[str, Any]) -> RecTrainingJob:
    """Raises InvalidSpec with the config's own key, where it has one."""
    try:
        return RecTrainingJob.model_validate(job)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{_KEY_OF.get(field, field)}: {first['msg']}.") from wrong


def _name_of(place: Path) -> str:
    """A run's name: that of its folder, as far as a name can have it."""
    return re.sub(r"[^a-z0-9]+", "-", place.name.lower()).strip("-")[:40] or "run"


def _devices(section: Mapping[str, Any], gpus: int, notes: list[str]) -> int:
    """GPUs to train on: one, or all that there are where a config says `distributed`."""
    if not section.get("use_gpu", False):
        return 0
    if not gpus:
        notes.append("Global.use_gpu isn't used: there is no GPU here, so the CPU trains")
    return gpus if section.get("distributed") else min(gpus, 1)


def _place_of(config: UpstreamConfig) -> Path:
    """The run's folder. Raises InvalidSpec."""
    named = config.data.save_model_dir
    if named is None:
        raise InvalidSpec(
            "Global.save_model_dir is missing: say where the run is kept, with -o "
            "Global.save_model_dir=./output."
        )
    return _path(named)


def _make_writable(place: Path) -> None:
    """Raises PermissionRefused."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as e:
        raise PermissionRefused(
            f"Global.save_model_dir: {place} can't be written ({e.strerror}): choose another, or change its "
            "permissions."
        ) from e


def _data(config: UpstreamConfig, made: DataPlan) -> DataPlan:
    """The data where it lies, and its dictionary."""
    if config.data.train is None:
        raise InvalidSpec("Train.dataset is missing: name data_dir and label_file_list in it.")
    train, train_files = _set("Train", config.data.train)
    held_out, eval_files = _set("Eval", config.data.eval) if config.data.eval else (None, None)
    return made.model_copy(
        update={
            "train": train,
            "train_files": train_files,
            "eval": held_out,
            "eval_files": eval_files,
            "dictionary": _dictionary(config, made.dictionary),
        }
    )


def _set(part: str, data: DataSet) -> tuple[str, LabelFiles | None]:
    """URI of a set, and its label files. Raises InputMissing, InvalidSpec."""
    folder = _path(data.data_dir)
    if not folder.is_dir():
        raise InputMissing(f"{part}.dataset.data_dir: there is no folder {folder}: correct the path.")
    if data.kind == "LMDBDataSet" or not data.label_files:
        return local_uri(folder), None
    files = [_path(name) for name in data.label_files]
    for file in files:
        if not file.is_file():
            raise InputMissing(f"{part}.dataset.label_file_list: there is no file {file}: correct the path.")
    uris = [local_uri(file) for file in files]
    return uris[0] if len(uris) == 1 else local_uri(folder), LabelFiles(
        folder=local_uri(folder), files=uris, ratios=_ratios(part, data)
    )


def _ratios(part: str, data: DataSet) -> list[float] | None:
    """The part of each label file that an epoch takes; None where it is all. Raises InvalidSpec."""
    ratios = list(data.ratios) * (len(data.label_files) if len(data.ratios) == 1 else 1)
    if all(ratio == 1 for ratio in ratios):
        return None
    where = f"{part}.dataset.ratio_list is {list(data.ratios)}"
    if part == "Eval":
        raise InvalidSpec(f"{where}, and RecTrain evaluates on whole label files: set it to 1.0.")
    if len(ratios) != len(data.label_files) or not all(0 <= ratio <= 1 for ratio in ratios):
        raise InvalidSpec(f"{where}: it must be one number from 0 to 1, or one for each label file.")
    return ratios


def _dictionary(config: UpstreamConfig, chosen: str) -> str:
    """The file that the config names; one of PaddleOCR's own by its name, since some of their lines can't be
    learnt and aren't. Raises InputMissing.
    """
    named = config.data.character_dict_path
    if named is None:
        return chosen
    path, own = _path(named), builtin_names().get(Path(named).stem)
    if path.is_file():
        same = own is not None and own.read_bytes() == path.read_bytes()
        return path.stem if same else local_uri(path)
    if config.preset.dictionary is not None:
        return config.preset.dictionary
    raise InputMissing(f"Global.character_dict_path: there is no file {path}: correct the path.")


def _pretrained(config: UpstreamConfig, place: Path, notes: list[str]) -> PretrainedPlan | None:
    """Weights to start from: `checkpoints` before `pretrained_model`, as upstream. Raises InputMissing."""
    key = "checkpoints" if config.data.checkpoints else "pretrained_model"
    named = config.data.checkpoints or config.data.pretrained_model
    if named is None:
        return None
    if key == "checkpoints":
        notes.append(
            "Global.checkpoints gives the first weights alone: a run goes on from its own newest checkpoint"
        )
    path = _path(named)
    file = path.parent / (path.name.removesuffix(WEIGHTS_SUFFIX) + WEIGHTS_SUFFIX)
    if key == "checkpoints" and path.is_relative_to(place) and not file.is_file():
        return None  # how PaddleOCR's users go on with a run, which this one does by itself
    if (path / LOG_PREFIX).is_dir():
        return PretrainedPlan(uri=local_uri(path), checkpoint="Best")
    if not file.is_file():
        raise InputMissing(
            f"Global.{key}: there is no file {file}: correct the path, or leave it out (a run that was "
            "interrupted goes on by itself)."
        )
    return PretrainedPlan(uri=local_uri(file))


def _path(named: str) -> Path:
    return Path(os.path.normpath(Path.cwd() / named))
