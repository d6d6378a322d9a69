"""Weights to start from (`model.pretrained`): found, fetched, checked, and fitted to this run's model.

Called by the run before its attempt is taken: weights that can't be used cost no step and leave no trace in
its log. A run with a checkpoint of its own never reads them. What isn't loaded keeps the first weights of the
run's seed, so the same weights and the same seed give the same start.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from rectrain_api.errors import DatasetInvalid, InputMissing, InvalidSpec, RectrainError
from rectrain_api.plan import PretrainedPlan, RunPlan
from rectrain_api.records import CheckpointRecord
from rectrain_api.run_log import RunLog
from rectrain_api.run_state import RunState
from rectrain_data.dictionary import builtin_names, not_there
from rectrain_data.findings import Code, Finding, Place
from rectrain_data.transfer import Corrupt, Download, Store, sha256_file
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe
from rectrain_trainer.model import build_model
from rectrain_trainer.offers import CONFIG
from rectrain_trainer.resume import DAMAGED
from rectrain_trainer.snapshot_files import PARAMS, load_arrays
from rectrain_trainer.transplant import SPACE, characters_of, transplant

log = logging.getLogger(__name__)

_LOOKS: Final = 5
"""A run that trains may retire a checkpoint while it is fetched: so often its log is read."""
_STUDENT: Final = "Student."
"""How PaddleOCR's distillation names the model that is meant to be used."""


@dataclass(frozen=True)
class Given:
    """Weights as they were found."""

    arrays: Mapping[str, Any]
    characters: tuple[str, ...] | None
    """In the order of the head's classes; None when nobody knows."""
    source: str
    """As a sentence names it."""


class First(NamedTuple):
    """What a run starts with."""

    weights: dict[str, Any]
    """All of them, by name."""
    sentence: str
    """What was loaded."""
    finding: Finding | None
    """A head of which nothing was."""


def first_weights(
    plan: RunPlan,
    recipe: Recipe,
    state: RunState,
    open_store: Callable[[str], Store],
    folder: Path,
    board: Board,
) -> First | None:
    """The weights that the run starts with; None when they are the seed's, or it has a checkpoint.

    Raises:
        InputMissing, PermissionRefused, StoreUnavailable: naming what isn't there.
        DatasetInvalid: a hash differs, or the dictionary isn't one.
        InvalidSpec: it isn't weights, or not of this model.
    """
    named = plan.model.pretrained
    if named is None:
        return None
    if state.checkpointed_attempts:
        log.info("model.pretrained isn't read again: the run goes on from its own checkpoints.")
        return None
    board.say(f"fetching the weights to start from: {named.uri}")
    try:
        given = (
            _of_run(named, open_store, folder) if named.checkpoint else _of_file(named, open_store, folder)
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    first = fitted(recipe, given)
    board.say("")
    log.info("%s", first.sentence)
    if first.finding:
        log.warning("%s.", first.finding)
    return first


def fitted(recipe: Recipe, given: Given) -> First:
    """The model's first weights with what fits of the given ones.

    Raises InvalidSpec when nothing does.
    """
    own = {name: np.array(tensor.numpy()) for name, tensor in build_model(recipe).state_dict().items()}
    characters = (*recipe.characters, *([SPACE] if recipe.use_space_char else []))
    weights, report = transplant(own, given.arrays, characters, given.characters)
    if not report.body:
        raise InvalidSpec(
            f"{given.source} holds nothing that fits the preset {recipe.preset}: none of its "
            f"{len(given.arrays)} tensors has name and shape of one beside the head (here, such as "
            f"{next(iter(own))}; there, such as {next(iter(given.arrays), 'none at all')}). Choose the "
            "preset that it was trained with, or other weights."
        )
    fresh = [str(head) for head in report.heads if not head.carried]
    finding = Finding(Code.FRESH_HEAD) if fresh else None
    if finding:
        finding.add(Place(given.source, detail="; ".join(fresh)))
    return First(weights, f"Starting from {given.source}: {report}.", finding)


# -- another run


def _of_run(named: PretrainedPlan, open_store: Callable[[str], Store], folder: Path) -> Given:
    """A checkpoint of another run, which may be training just now."""
    store = open_store(named.uri)
    run_log = RunLog(store, store.uri)
    tried: CheckpointRecord | None = None
    why: RectrainError | None = None
    for _ in range(_LOOKS):
        state = run_log.read()
        record = _chosen(state, named)
        if why is not None and record == tried:
            break
        try:
            return _fetched(record, state, store, folder)
        except DAMAGED as e:
            tried, why = record, e
    assert why is not None
    assert tried is not None
    other = "Latest" if named.checkpoint == "Best" else "Best"
    raise type(why)(
        f"The checkpoint of step {tried.step} of the run at {named.uri} didn't come whole "
        f"({str(why).partition(': ')[0]}): try model.pretrained.checkpoint: {other}, or bring its files back."
    ) from why


def _chosen(state: RunState, named: PretrainedPlan) -> CheckpointRecord:
    """The best or the newest checkpoint of a run. Raises InputMissing."""
    if not state.starts:
        raise InputMissing(
            f"{named.uri} holds no run (there is no log/ in it): name the checkpoint.uri of a run in "
            "model.pretrained.uri, or a file of weights that ends in .pdparams."
        )
    if named.checkpoint == "Best":
        found = state.checkpoint_at(state.best.prefix) if state.best else None
    else:
        found = next(iter(state.newest_first()), None)
    if found is None:
        other = ", or take its newest with model.pretrained.checkpoint: Latest" if state.checkpoints else ""
        which = "best checkpoint" if state.checkpoints else "checkpoint"
        raise InputMissing(f"The run at {named.uri} has no {which} yet: wait until it has one{other}.")
    return found


def _fetched(record: CheckpointRecord, state: RunState, store: Store, folder: Path) -> Given:
    files = {f.name: f for f in record.files}
    shutil.rmtree(folder, ignore_errors=True)
    for name in (PARAMS, CONFIG):
        if name not in files:
            raise InvalidSpec(f"{store.uri_of(record.prefix)} has no {name}: choose another checkpoint.")
    store.download_all(
        [
            Download(f"{record.prefix}/{n}", folder / n, files[n].size, files[n].sha256)
            for n in (PARAMS, CONFIG)
        ]
    )
    accuracy = record.accuracy
    if state.best is not None and state.best.prefix == record.prefix:
        accuracy = state.best.accuracy
    measured = "" if accuracy is None else f", accuracy {accuracy:.1%}"
    return Given(
        _read(folder / PARAMS, store.uri_of(f"{record.prefix}/{PARAMS}")),
        _recorded_characters(folder / CONFIG, store.uri_of(f"{record.prefix}/{CONFIG}")),
        f"{store.uri} (step {record.step}{measured})",
    )


def _recorded_characters(path: Path, uri: str) -> tuple[str, ...]:
    """What config.yml of a checkpoint says of its head. Raises InvalidSpec."""
    try:
        content = yaml.safe_load(path.read_bytes())
        space = [SPACE] if content["useSpaceChar"] else []
        return tuple(str(c) for c in (*content["dictionary"], *space))
    except (yaml.YAMLError, KeyError, TypeError) as e:
        raise InvalidSpec(
            f"{uri} doesn't say which characters its weights tell apart ({type(e).__name__}): name the "
            "model.pdparams beside it in model.pretrained.uri, and its dictionary."
        ) from e


# -- a file of weights


def _of_file(named: PretrainedPlan, open_store: Callable[[str], Store], folder: Path) -> Given:
    parent, _, name = named.uri.rpartition("/")
    path = folder / name
    open_store(parent).download_file(Download(name, path))
    if named.sha256 is not None and (found := sha256_file(path)) != named.sha256:
        raise Corrupt(
            f"{named.uri} has the sha256 {found} instead of {named.sha256}: it isn't the file that was "
            "meant; upload that, or correct model.pretrained.sha256."
        )
    arrays = _read(path, named.uri)
    if named.dictionary is None:
        return Given(arrays, None, named.uri)
    try:
        characters = characters_of(arrays, _lines(named.dictionary, open_store))
    except InvalidSpec as e:
        raise InvalidSpec(f"model.pretrained.dictionary doesn't fit {named.uri}: {e}.") from None
    return Given(arrays, characters, named.uri)


def _lines(dictionary: str, open_store: Callable[[str], Store]) -> list[str]:
    """A dictionary's lines as upstream counts them: each is a class, also one that can never be read."""
    if "://" in dictionary:
        parent, _, name = dictionary.rpartition("/")
        data = open_store(parent).get_bytes(name)
    elif (path := builtin_names().get(dictionary)) is not None:
        data = path.read_bytes()
    else:
        raise InputMissing(f"model.pretrained.dictionary: {not_there(dictionary)}.")
    try:
        lines = [line.removesuffix("\r") for line in data.decode().split("\n")]
    except UnicodeDecodeError as e:
        raise DatasetInvalid(f"{dictionary} isn't UTF-8 text: save it as UTF-8.") from e
    return lines[:-1] if lines[-1] == "" else lines


# -- what is in it


def _read(path: Path, uri: str) -> dict[str, Any]:
    """The arrays of a file of weights, by upstream's names. Raises InvalidSpec naming `uri`."""
    try:
        arrays = arrays_of(load_arrays(path))
    except InvalidSpec as e:
        raise InvalidSpec(str(e).replace(str(path), uri)) from None
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidSpec(
                f"{uri} can't be started from: its {name} isn't finite; take an earlier checkpoint."
            )
    return arrays


def arrays_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is an array in a file of paddle.save: as such, or as a pair of the tensor's name and an array.

    Of a distillation, which holds several models, only the student's, by the names that it has alone.
    """
    arrays = {}
    for name, value in content.items():
        array = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if isinstance(array, np.ndarray):
            arrays[name] = array
    student = {n.removeprefix(_STUDENT): a for n, a in arrays.items() if n.startswith(_STUDENT)}
    if student:
        log.info("The weights are a distillation's: its student is taken.")
    return student or arrays
