"""From a config's sections to a `Preset`, section by section. Pure."""

import copy
import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import ValidationError

from rectrain_api.errors import InvalidSpec
from rectrain_api.presets import AmpConfig, EmaConfig, Preset, PresetConfig, SamplerConfig
from rectrain_api.upstream_config.kinds import check_kinds
from rectrain_api.upstream_config.model import check_labels, check_model, without_derived
from rectrain_api.upstream_config.notes import Note
from rectrain_api.upstream_config.transforms import Transforms, read_transforms
from rectrain_api.upstream_config.words import (
    AMP,
    DATASETS,
    EMA,
    OPTIMIZERS,
    REGULARIZERS,
    REPLACED,
    SAMPLERS,
    SCHEDULES,
    UNUSED,
    USED,
)

_SECTIONS: Final = ("Global", "Optimizer", "Architecture", "Loss", "PostProcess", "Train")
_BESIDE: Final = ("Eval", "Metric", "profiler_options")
_BUILTIN: Final = re.compile(r"(?:.*/)?ppocr/utils/(?:dict/)?([\w.-]+)\.txt")

_HIGHEST: Final = 1e6
"""Of a learning rate; infinite ones and such as no float holds are above it."""


class Reader:
    """Reads one config; `notes` and `model_name` are there after `preset()`."""

    def __init__(self, content: dict[str, Any], source: str) -> None:
        self.notes: list[Note] = []
        self.model_name: str | None = None
        self._content = content
        self._source = source

    def preset(self) -> Preset:
        """Raises InvalidSpec: what is missing, misspelt, or can't be trained."""
        try:
            return self._read()
        except ValidationError as wrong:
            first = wrong.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidSpec(f"{where}: {first['msg']}.") from wrong

    def _read(self) -> Preset:
        self._check_sections()
        check_kinds(self._content)
        section, architecture = self._content["Global"], self._content["Architecture"]
        check_model(self._content)
        self._tell_global(section)
        self.model_name = self._model_name(section)
        longest = self._whole(section, "Global.max_text_length")
        train = self._train()
        check_labels(architecture["Head"], train.label_encode)
        optimizer, rate = self._optimizer()
        sampler = self._sampler()
        shape, padded = self._shape(train, sampler)
        architecture, loss = without_derived(architecture, self._content["Loss"])
        self._tell_rest()
        return Preset(
            name=self.model_name or str(architecture.get("algorithm") or architecture["Backbone"]["name"]),
            title="A config of the user's own",
            description=f"As {self._source} describes it.",
            source=self._source,
            image_shape=shape,
            padded=padded,
            max_text_length=longest,
            epochs=self._whole(section, "Global.epoch_num"),
            batch_size=self._batch_size(),
            learning_rate=rate,
            dictionary=self._dictionary(section),
            config=PresetConfig(
                architecture=architecture,
                loss=loss,
                optimizer=optimizer,
                post_process={"name": "CTCLabelDecode"},
                label_encode=train.label_encode,
                augment=self._augment(train, shape, longest),
                resize=train.resize or "RecResizeImg",
                keep_keys=train.keep_keys,
                sampler=sampler,
                ema=self._ema(section),
                amp=self._amp(section),
            ),
        )

    # -- sections

    def _check_sections(self) -> None:
        architecture = self._content.get("Architecture")
        if isinstance(architecture, dict) and "function" in architecture:
            raise InvalidSpec(
                "it is a config of PaddleOCR 1.x (Architecture.function), which neither 2.10 nor 3.x reads: "
                "use the config of the same name of 2.x."
            )
        for name in _SECTIONS:
            if name not in self._content:
                raise InvalidSpec(
                    f"it has no section {name}{_near(name, self._content)}: a config of PaddleOCR for "
                    f"recognition has {', '.join(_SECTIONS)}."
                )
            if not isinstance(self._content[name], dict):
                raise InvalidSpec(f"{name} must be a section, not {self._content[name]!r}.")
        for name in sorted(map(str, set(self._content) - {*_SECTIONS, *_BESIDE})):
            self._note(name, "Unused", f"PaddleOCR has no such section{_near(name, [*_SECTIONS, *_BESIDE])}")

    def _tell_global(self, section: Mapping[str, Any]) -> None:
        for key in (key for key, value in section.items() if value not in (None, "") and key not in USED):
            name = f"Global.{key}"
            if name in REPLACED:
                self._note(name, "Replaced", REPLACED[name])
            else:
                known = [*USED, *(one.partition(".")[2] for one in (*REPLACED, *UNUSED))]
                self._note(name, "Unused", UNUSED.get(name, f"RecTrain doesn't know it{_near(key, known)}"))

    def _tell_rest(self) -> None:
        if self._content.get("Metric"):
            self._note("Metric", "Replaced", "the accuracies that RecTrain measures, with and without spaces")
        if self._content.get("Eval"):
            self._note(
                "Eval", "Replaced", "data.eval; images are prepared for it as the exported model reads them"
            )
        if self._content.get("profiler_options"):
            self._note("profiler_options", "Unused", "only PaddleOCR's own loop reads it")

    # -- parts

    def _model_name(self, section: Mapping[str, Any]) -> str | None:
        names = [section[key] for key in ("model_name", "pdx_model_name") if section.get(key)]
        if not all(isinstance(name, str) for name in names):
            raise InvalidSpec(f"Global.model_name must be text, not {names[0]!r}.")
        if len(set(names)) > 1:
            self._note("Global.pdx_model_name", "Replaced", f"Global.model_name ({names[0]})")
        return names[0] if names else None

    def _train(self) -> Transforms:
        part = self._content["Train"]
        data = part.get("dataset")
        if not isinstance(data, dict):
            raise InvalidSpec("Train.dataset must be a section.")
        _known(data.get("name"), DATASETS, "Train.dataset.name")
        self._note("Train.dataset", "Replaced", "data.train, but for its transforms")
        if data.get("ratio_list") not in (None, [], [1], [1.0], 1, 1.0):
            self._note("Train.dataset.ratio_list", "Unused", "every sample comes once an epoch")
        if data.get("ds_width"):
            self._note("Train.dataset.ds_width", "Replaced", "sampler.scales: batches have its sizes")
        loader = part.get("loader")
        if isinstance(loader, dict) and set(loader) - {"batch_size_per_card"}:
            self._note(
                "Train.loader",
                "Replaced",
                "RecTrain's own, but for batch_size_per_card (training.workers; each sample once an epoch)",
            )
        return read_transforms(data.get("transforms"), self.notes)

    def _optimizer(self) -> tuple[dict[str, Any], float]:
        """The section without its learning rate, and that."""
        section = copy.deepcopy(self._content["Optimizer"])
        _known(section.get("name"), OPTIMIZERS, "Optimizer.name")
        rates, decay = section.get("lr"), section.get("regularizer")
        if not isinstance(rates, dict):
            raise InvalidSpec("Optimizer.lr must be a section with name and learning_rate.")
        _known(rates.get("name", "Const"), SCHEDULES, "Optimizer.lr.name")
        if isinstance(decay, dict):
            _known(decay.get("name"), REGULARIZERS, "Optimizer.regularizer.name")
        if section.get("group_lr"):
            raise InvalidSpec("Optimizer.group_lr is VisionLAN's, which can't be trained here: remove it.")
        return section, _peak(rates)

    def _sampler(self) -> SamplerConfig | None:
        section = self._content["Train"].get("sampler")
        if section is None:
            return None
        if not isinstance(section, dict):
            raise InvalidSpec("Train.sampler must be a section.")
        _known(section.get("name"), SAMPLERS, "Train.sampler.name")
        scales: Any = section.get("scales")
        factors: Any = section.get("divided_factor", [8, 16])
        if not _numbers(scales, 2) or not _numbers([factors], 2) or min(factors) < 1:
            raise InvalidSpec(
                "Train.sampler: scales are pairs of width and height, divided_factor is one: whole numbers."
            )
        # As upstream does: down to a multiple that the network takes.
        fitted = [(w - w % factors[0], h - h % factors[1]) for w, h in scales]
        if any(w < 1 or h < 1 for w, h in fitted):
            raise InvalidSpec(f"Train.sampler: a scale of {scales} is below divided_factor, {factors}.")
        return SamplerConfig(scales=fitted, fix_bs=bool(section.get("fix_bs", True)))

    def _shape(self, train: Transforms, sampler: SamplerConfig | None) -> tuple[list[int], bool]:
        """[channels, height, width] [px] that images are trained at, and whether they are padded to it."""
        eval_shape = _shape_of(self._content.get("Eval"))
        shape = train.image_shape or eval_shape or self._content["Global"].get("d2s_train_image_shape")
        if shape is None and sampler is not None:
            width, height = sampler.scales[0]
            shape = [3, height, width]
        if not _numbers([shape], 3):
            raise InvalidSpec(
                "no image_shape is named: Train.dataset.transforms or Eval.dataset.transforms must have "
                "RecResizeImg with image_shape [3, height, width]."
            )
        channels, height, width = shape
        SamplerConfig(scales=[(width, height)])  # refused here if it is no size that can be trained at
        if channels != 3:
            raise InvalidSpec(f"image_shape {shape}: RecTrain trains on colours: its first number must be 3.")
        if eval_shape and eval_shape != shape:
            self._note("Eval.dataset.transforms", "Replaced", f"the size of training ({shape})")
        return list(shape), train.padded

    def _batch_size(self) -> int:
        part = self._content["Train"]
        key = "Train.loader.batch_size_per_card"
        size = self._whole(part.get("loader") or {}, key)
        first = (part.get("sampler") or {}).get("first_bs")
        if first is None:
            return size
        first = self._whole(part["sampler"], "Train.sampler.first_bs")
        if first != size:
            self._note(key, "Replaced", f"Train.sampler.first_bs ({first}), as in PaddleOCR")
        return first

    def _dictionary(self, section: Mapping[str, Any]) -> str | None:
        path = section.get("character_dict_path")
        if not path:
            return None
        match = _BUILTIN.fullmatch(str(path).replace("\\", "/"))
        if match:
            return match[1]
        self._note(
            "Global.character_dict_path",
            "Replaced",
            f"data.dictionary, or else the labels' own characters: {path} isn't one of PaddleOCR's own",
        )
        return None

    def _augment(self, train: Transforms, shape: list[int], longest: int) -> list[dict[str, Any]]:
        """RecConAug without what follows from the model."""
        _, height, width = shape
        follows = {"image_shape": [height, width, 3], "max_text_length": longest}
        result = []
        for operator in train.augment:
            ((name, given),) = operator.items()
            if name == "RecConAug":
                given = {k: v for k, v in given.items() if follows.get(k, object()) != v}
            result.append({name: given})
        return result

    def _amp(self, section: Mapping[str, Any]) -> AmpConfig | None:
        if not section.get("use_amp"):
            return None
        return AmpConfig.model_validate({ours: section[key] for key, ours in AMP.items() if key in section})

    def _ema(self, section: Mapping[str, Any]) -> EmaConfig | None:
        if not section.get("use_ema"):
            return None
        return EmaConfig.model_validate({ours: section[key] for key, ours in EMA.items() if key in section})

    # -- helpers

    def _whole(self, section: Mapping[str, Any], key: str) -> int:
        value = section.get(key.rpartition(".")[2])
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        said = "is missing" if value is None else f"must be a whole number above 0, not {value!r}"
        raise InvalidSpec(f"{key} {said}.")

    def _note(self, key: str, what: Any, why: str) -> None:
        self.notes.append(Note(key, what, why))


def _peak(rates: dict[str, Any]) -> float:
    """The learning rate of a schedule, taken out of it; the shape that is left has it as a factor."""
    if rates.get("name") == "Piecewise":
        values: Any = rates.get("values")
        given = max(values) if _fractions(values) else None
    elif rates.get("name") == "OneCycle":
        given = rates.pop("max_lr", None)
    else:
        given = rates.pop("learning_rate", None)
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < _HIGHEST:
        return float(given)
    named = {"Piecewise": "values", "OneCycle": "max_lr"}.get(str(rates.get("name")), "learning_rate")
    raise InvalidSpec(f"Optimizer.lr.{named} must be above 0 and finite, not {given!r}.")


def _fractions(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    )


def _numbers(rows: Any, length: int) -> bool:
    """Whether these are lists of so many whole numbers."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(
            isinstance(row, list)
            and len(row) == length
            and all(isinstance(one, int) and not isinstance(one, bool) for one in row)
            for row in rows
        )
    )


def _shape_of(part: Any) -> list[int] | None:
    """The image_shape of Eval's resize."""
    data = part.get("dataset") if isinstance(part, dict) else None
    operators = data.get("transforms") if isinstance(data, dict) else None
    for operator in operators if isinstance(operators, list) else []:
        for name, given in operator.items() if isinstance(operator, dict) else ():
            if str(name).endswith("ResizeImg") and isinstance(given, dict) and given.get("image_shape"):
                return list(given["image_shape"])
    return None


def _known(name: Any, known: Collection[str], where: str) -> None:
    if name not in known:
        raise InvalidSpec(
            f"{where}: {name!r} isn't one that RecTrain runs{_near(str(name), known)}: "
            f"use {', '.join(sorted(known))}."
        )


def _near(name: str, known: Collection[str]) -> str:
    folded = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.75)
    return f" (did you mean {folded[near[0]]}?)" if near else ""
