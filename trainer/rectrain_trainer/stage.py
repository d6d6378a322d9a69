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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.plan import FROM_LABELS, DataPlan, LabelFiles, RunPlan
from rectrain_api.report import Stage
from rectrain_data import dictionary as dictionaries
from rectrain_data import labels
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Report
from rectrain_data.lmdb_set import DATA, LmdbSet
from rectrain_data.packed import INDEX, read_index
from rectrain_data.split import EVAL, TRAIN, Split
from rectrain_data.transfer import Download, Store, is_local, local_path, sha256_file, split_uri
from rectrain_trainer.board import Board
from rectrain_trainer.cache import PARALLEL, SharedCache
from rectrain_trainer.disk import check_room, human
from rectrain_trainer.local_sets import learn_local, splits_of
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

    @property
    def lmdb(self) -> bool:
        """Whether it is one: a folder that isn't packed."""
        return not (self.packed or self.files) and self.path.is_dir()


def stage(
    plan: RunPlan, open_store: OpenStore, folder: Path, board: Board, cache: Path | None = None
) -> Staged:
    """Fetch the data of a plan into `folder`; packed sets into `cache`, if there is one.

    Raises:
        InvalidSpec: a set that isn't packed was to be cached.
        InputMissing, PermissionRefused, StoreUnavailable: naming the object.
        DatasetInvalid: a label file, index or dictionary isn't what it should be.
        DiskTooSmall: before anything large is fetched.
    """
    board.enter(Stage.STAGING)
    folder.mkdir(parents=True, exist_ok=True)
    data, uris = plan.data, UriMap()
    with uris.translating():
        wanted: list[Split] = [TRAIN] if data.eval else [TRAIN, EVAL]
        train = _learn("train", data.train, data.train_files, wanted, open_store, folder / "train", uris)
        held_out = None
        if data.eval:
            held_out = _learn("eval", data.eval, data.eval_files, [EVAL], open_store, folder / "eval", uris)
        sets = [train, *([held_out] if held_out else [])]
        if cache is None:
            _fetch(sets, folder, data.cache_bytes, board)
        else:
            _fetch_shared(sets, SharedCache(cache, board), board)
        for one in sets:
            if one.lmdb:
                LmdbSet.open(one.path)
        sources = _sources(data, train, held_out)
        dictionary = _dictionary(data, open_store, sources, folder, uris)
    board.say("")
    return Staged(*sources, dictionary, uris)


# -- what is needed


def _learn(
    field: str,
    uri: str,
    files: LabelFiles | None,
    wanted: list[Split],
    open_store: OpenStore,
    folder: Path,
    uris: UriMap,
) -> _Set:
    """A packed set by its index.json, else a label file, else LMDBs."""
    store = open_store(uri)
    if is_local(uri):
        found = learn_local(field, local_path(uri), files, wanted)
        return _Set(found.path, found.packed, found.splits, store, [], found.files, found.ratios)
    content = store.get(INDEX)
    if content is not None:
        return _learn_packed(content, wanted, store, folder, uris)
    parent, _, name = uri.rpartition("/")
    if not split_uri(uri)[1] or (beside := open_store(parent)).head(name) is None:
        return _learn_lmdb(field, store, folder, uris)
    uris.add(folder, beside.uri)
    beside.download_file(Download(name, folder / name))
    return _Set(folder / name, False, (), beside, _images(folder / name, uri, beside))


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


def _images(file: Path, uri: str, store: Store) -> list[Download]:
    """The images of a label file, with the sizes that S3 lists."""
    report = Report()
    rows = list(labels.read(file, report))
    report.raise_if_any()
    sizes = {o.key: o.size for o in store.list_objects()}
    missing = [row for row in rows if row.path not in sizes]
    if missing:
        first = missing[0]
        one = f"The image {store.uri_of(first.path)} ({uri} line {first.line}) isn't there"
        many = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputMissing(f"{one}{many}: upload it beside the label file, or remove its line.")
    return [Download(row.path, file.parent / row.path, sizes[row.path]) for row in rows]


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
            StagedSource(train.path, train.packed, own, files=train.files, ratios=train.ratios),
            StagedSource(held_out.path, held_out.packed, eval_split, files=held_out.files),
        )
    if len(train.splits) > 1:
        return StagedSource(train.path, True, TRAIN), StagedSource(train.path, True, EVAL)
    whole = StagedSource(
        train.path, train.packed, own, None, data.eval_fraction, files=train.files, ratios=train.ratios
    )
    return (
        replace(whole, part=TRAIN),
        replace(whole, part=EVAL),
    )


def _dictionary(
    data: DataPlan,
    open_store: OpenStore,
    sources: tuple[StagedSource, StagedSource],
    folder: Path,
    uris: UriMap,
) -> Dictionary:
    """The characters to tell apart; a space is among them if a label holds one."""
    if is_local(data.dictionary):
        chosen = dictionaries.read(local_path(data.dictionary))
    elif data.dictionary.startswith("s3://"):
        parent, _, name = data.dictionary.rpartition("/")
        store = open_store(parent)
        uris.add(folder / "dictionary", store.uri)
        store.download_file(Download(name, folder / "dictionary" / name))
        chosen = dictionaries.read(folder / "dictionary" / name, data.dictionary)
    elif data.dictionary != FROM_LABELS:
        chosen = dictionaries.builtin(data.dictionary)
    else:
        chosen = None
    counts = dictionaries.count_set(*(open_set(*whole) for whole in wholes_of(*sources)))
    return chosen.with_space_of(counts) if chosen else dictionaries.from_counts(counts)
