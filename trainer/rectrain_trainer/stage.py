"""The stage stage: everything that training reads, from S3 to this pod's disk.

Called by the run. First what is needed is learnt (a packed set's index, or a label file and a list of the
objects beside it, or where LMDBs lie), then the disk is checked, then everything is fetched at once, bounded.
What an earlier pod left on the same disk, or another run on a shared volume (`cache`), is used if it is
whole. Data of this machine is read where it lies.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.plan import FROM_LABELS, DataPlan, LabelFiles, RunPlan
from rectrain_api.report import Stage
from rectrain_data import dictionary as dictionaries
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Finding
from rectrain_data.lmdb_set import DATA, LmdbSet
from rectrain_data.packed import INDEX, read_index
from rectrain_data.split import EVAL, TRAIN, Split
from rectrain_data.transfer import Download, Store, is_local, local_path, sha256_file, split_uri
from rectrain_trainer import passed_over
from rectrain_trainer.board import Board
from rectrain_trainer.cache import PARALLEL, SharedCache
from rectrain_trainer.disk import check_room, human
from rectrain_trainer.local_sets import learn_local, splits_of
from rectrain_trainer.passed_over import PassedOver, Validation
from rectrain_trainer.sources import StagedSource, Whole, open_set, wholes_of
from rectrain_trainer.uris import UriMap

log = logging.getLogger(__name__)

OpenStore = Callable[[str], Store]
_TELL_EVERY_S: Final = 1.0


@dataclass(frozen=True)
class Staged:
    """What training reads."""

    train: StagedSource
    eval: StagedSource
    dictionary: Dictionary
    uris: UriMap
    passed_over: int = 0
    """Lines of label files that are no samples."""
    findings: list[Finding] = field(default_factory=list)
    """Why, with paths on this disk."""

    def wholes(self) -> list[Whole]:
        """Every set once, train before eval."""
        return wholes_of(self.train, self.eval)


@dataclass(frozen=True)
class _Set:
    """A set whose index or label file is here; `downloads` is all the rest of it."""

    path: Path
    packed: bool
    splits: tuple[Split, ...]
    """Of a packed set; a label file has none."""
    store: Store
    downloads: list[Download]
    files: tuple[Path, ...] = ()
    """Label files that are one set, of this machine."""
    ratios: tuple[float, ...] = ()
    passed_over: PassedOver = field(default_factory=PassedOver)

    @property
    def lmdb(self) -> bool:
        """Whether it is one: a folder that isn't packed."""
        return not (self.packed or self.files) and self.path.is_dir()


def stage(
    plan: RunPlan,
    open_store: OpenStore,
    folder: Path,
    board: Board,
    cache: Path | None = None,
    *,
    for_check: bool = False,
) -> Staged:
    """Fetch the data of a plan into `folder`; packed sets into `cache`, if there is one.

    `for_check`: what validation Strict refuses in a label file is left to the check, which tells it beside
    all else.

    Raises:
        InvalidSpec: a set that isn't packed was to be cached.
        InputMissing, PermissionRefused, StoreUnavailable: naming the object.
        DatasetInvalid: an index, a dictionary or, with Strict, a label file isn't what it should be.
        DiskTooSmall: before anything large is fetched.
    """
    board.enter(Stage.STAGING)
    folder.mkdir(parents=True, exist_ok=True)
    data, uris = plan.data, UriMap()
    with uris.translating():
        chosen = _chosen_dictionary(data, open_store, folder, uris)
        wanted: list[Split] = [TRAIN] if data.eval else [TRAIN, EVAL]
        how: Validation = "Warn" if for_check and data.validation == "Strict" else data.validation
        learn = partial(_learn, open_store=open_store, uris=uris, validation=how)
        train = learn("train", data.train, data.train_files, wanted, folder=folder / "train")
        held_out = None
        if data.eval:
            held_out = learn("eval", data.eval, data.eval_files, [EVAL], folder=folder / "eval")
        sets = [train, *([held_out] if held_out else [])]
        if cache is None:
            _fetch(sets, folder, data.cache_bytes, board)
        else:
            _fetch_shared(sets, SharedCache(cache, board), board)
        for one in sets:
            if one.lmdb:
                LmdbSet.open(one.path)
        sources = _sources(data, train, held_out)
        counts = dictionaries.count_set(*(open_set(whole) for whole in wholes_of(*sources)))
        dictionary = chosen.with_space_of(counts) if chosen else dictionaries.from_counts(counts)
    board.say("")
    others = [one.passed_over for one in sets]
    findings = [finding for other in others for finding in other.findings]
    return Staged(*sources, dictionary, uris, sum(other.count for other in others), findings)


# -- what is needed


def _learn(
    field: str,
    uri: str,
    files: LabelFiles | None,
    wanted: list[Split],
    open_store: OpenStore,
    folder: Path,
    uris: UriMap,
    validation: Validation,
) -> _Set:
    """A packed set by its index.json, else a label file, else LMDBs."""
    store = open_store(uri)
    if is_local(uri):
        found = learn_local(field, local_path(uri), files, wanted, validation)
        where = (found.path, found.packed, found.splits)
        return _Set(*where, store, [], found.files, found.ratios, found.passed_over)
    content = store.get(INDEX)
    if content is not None:
        return _learn_packed(content, wanted, store, folder, uris)
    parent, _, name = uri.rpartition("/")
    if not split_uri(uri)[1] or (beside := open_store(parent)).head(name) is None:
        return _learn_lmdb(field, store, folder, uris)
    uris.add(folder, beside.uri)
    beside.download_file(Download(name, folder / name))
    images, others = passed_over.read(folder / name, uri, beside, validation)
    downloads = [Download(path, folder / path, size) for path, size in images.items()]
    return _Set(folder / name, False, (), beside, downloads, passed_over=others)


def _learn_packed(content: bytes, wanted: list[Split], store: Store, folder: Path, uris: UriMap) -> _Set:
    """What of a packed set is needed: the wanted splits, or all of a set that has none of them."""
    index = read_index(content, store.uri_of(INDEX))
    uris.add(folder, store.uri)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).write_bytes(content)
    splits = splits_of(index, wanted, store.uri)
    files = index.files_of(splits)
    return _Set(
        folder, True, splits, store, [Download(f.name, folder / f.name, f.size, f.sha256) for f in files]
    )


def _learn_lmdb(field: str, store: Store, folder: Path, uris: UriMap) -> _Set:
    """Every data.mdb at a place or below it. Of lock.mdb, which lies beside it, nothing is read."""
    found = [o for o in store.list_objects() if o.key.rpartition("/")[2] == DATA]
    if not found:
        raise InputMissing(
            f"{store.uri} is neither a packed set (it holds no {INDEX}), nor a label file, nor an LMDB (it "
            f"holds no {DATA}): upload it (rectrain-data upload), or correct data.{field}."
        )
    uris.add(folder, store.uri)
    folder.mkdir(parents=True, exist_ok=True)
    return _Set(folder, False, (), store, [Download(o.key, folder / o.key, o.size) for o in found])


# -- fetching


def _fetch(sets: list[_Set], folder: Path, limit: int | None, board: Board) -> None:
    """Everything that isn't here yet."""
    todo = [(one.store, [d for d in one.downloads if not _is_whole(d)]) for one in sets]
    for stale in (d.path for _, downloads in todo for d in downloads):
        with contextlib.suppress(OSError):  # makes room; what can't go is reported when it is written
            stale.unlink()
    needed = sum(d.size or 0 for _, downloads in todo for d in downloads)
    whole = sum(d.size or 0 for one in sets for d in one.downloads)
    check_room(folder, needed, staged=whole - needed, limit=limit)
    meter = _Meter(needed, board)
    started = time.monotonic()
    for store, downloads in todo:
        store.download_all(downloads, limit=PARALLEL, progress=meter.add)
    _log_staged(needed, whole, time.monotonic() - started)


def _fetch_shared(sets: list[_Set], cache: SharedCache, board: Board) -> None:
    """Everything that isn't on the shared volume yet."""
    loose = next((one for one in sets if not one.packed), None)
    if loose is not None:
        uri = loose.store.uri if loose.lmdb else loose.store.uri_of(loose.path.name)
        what = (
            "an LMDB: use data.cache.size."
            if loose.lmdb
            else ("a label file: pack it (rectrain-data pack), or use data.cache.size.")
        )
        raise InvalidSpec(f"data.cache.claimName keeps packed sets, and {uri} is {what}")
    needed = sum(d.size or 0 for one in sets for d in cache.missing(one.downloads))
    whole = sum(d.size or 0 for one in sets for d in one.downloads)
    meter = _Meter(needed, board)
    started = time.monotonic()
    for one in sets:
        cache.fetch(one.store, one.downloads, meter.add)
    _log_staged(needed, whole, time.monotonic() - started)


def _log_staged(fetched: int, whole: int, took_s: float) -> None:
    if not whole:  # all of it lies here
        return
    rate = human(fetched / max(took_s, 1e-3))
    kept = f", {human(whole - fetched)} were here already" if whole > fetched else ""
    log.info("Staged %s in %.1f s (%s/s)%s.", human(fetched), took_s, rate, kept)


def _is_whole(item: Download) -> bool:
    """Whether an earlier pod fetched it, by hash. Loose images have none: equal size isn't equal bytes."""
    try:
        if item.path.stat().st_size != item.size:
            return False
    except OSError:
        return False
    return item.sha256 is not None and sha256_file(item.path) == item.sha256


class _Meter:
    """Tells the board how far staging is. Called from many threads."""

    def __init__(self, total: int, board: Board) -> None:
        self._total, self._board = total, board
        self._lock = threading.Lock()
        self._done = 0
        self._started = self._told = time.monotonic()

    def add(self, size: int) -> None:
        """So many bytes more have come."""
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._told < _TELL_EVERY_S:
                return
            self._told = now
            rate = human(self._done / max(now - self._started, 1e-3))
            percent = 100 * self._done // max(self._total, 1)
        text = f"staging data: {percent}% of {human(self._total)}, {rate}/s"
        self._board.say(text, at_once=False)


# -- what training sees


def _sources(data: DataPlan, train: _Set, held_out: _Set | None) -> tuple[StagedSource, StagedSource]:
    """Train and eval: a set of its own, the packed set's own split, or a part of train by hash."""
    own = train.splits[0] if train.splits else None
    if held_out is not None:
        eval_split = held_out.splits[0] if held_out.splits else None
        return (
            _source(train, own),
            _source(held_out, eval_split),
        )
    if len(train.splits) > 1:
        return StagedSource(train.path, True, TRAIN), StagedSource(train.path, True, EVAL)
    whole = replace(_source(train, own), eval_fraction=data.eval_fraction)
    return replace(whole, part=TRAIN), replace(whole, part=EVAL)


def _source(one: _Set, split: Split | None) -> StagedSource:
    bits = one.passed_over.bits
    return StagedSource(one.path, one.packed, split, passed_over=bits, files=one.files, ratios=one.ratios)


def _chosen_dictionary(
    data: DataPlan, open_store: OpenStore, folder: Path, uris: UriMap
) -> Dictionary | None:
    """The one that is named, read before anything large is fetched; None: the labels' own characters."""
    if is_local(data.dictionary):
        return dictionaries.read(local_path(data.dictionary))
    if data.dictionary.startswith("s3://"):
        parent, _, name = data.dictionary.rpartition("/")
        store = open_store(parent)
        uris.add(folder / "dictionary", store.uri)
        store.download_file(Download(name, folder / "dictionary" / name))
        return dictionaries.read(folder / "dictionary" / name, data.dictionary)
    return None if data.dictionary == FROM_LABELS else dictionaries.builtin(data.dictionary)
