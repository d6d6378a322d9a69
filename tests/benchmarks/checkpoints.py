"""What a checkpoint costs: `python tests/benchmarks/checkpoints.py`.

The trainer's own loop, capture and committer, with SeaweedFS on this machine, beside upstream's save in place
to the local disk (its best case) and s5cmd on the same files. SeaweedFS shares the cores with the training,
so what a checkpoint takes from the steps after it is more here than with a store elsewhere. Runs are
interleaved. Prints JSON lines {"name", "value", "unit", "baseline", "ratio"}; above a ratio of 1 ours is
better. Spread goes to stderr. Each part has a process of its own.

- stall: how long a step boundary takes because of a checkpoint (ours: capture and offer).
- lost: training time that one checkpoint costs in all, until it is committed: the stall, and what the steps
  meanwhile take longer than the quiet ones just before.
- upload: hash and send the files, as the committer does; commit: from the offer to the record. Also the CPU
  time of this process and of s5cmd, which other programs disturb less than the wall clock.
- resume: fetch, verify, load, restore; the baseline is s5cmd and upstream's load.
- memory: peak over that of training alone while the store is away, in copies of model and optimizer.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rectrain_data.transfer import Upload, sha256_file
from rectrain_trainer.device import configure_device
from rectrain_trainer.offers import Offer
from rectrain_trainer.resume import fetch
from rectrain_trainer.snapshot import Snapshot, restore
from rectrain_trainer.snapshot_files import save_snapshot
from tests.benchmarks._rig import (
    BUCKET,
    LARGE,
    S3,
    SMALL,
    Run,
    Trained,
    Upstream,
    seaweed,
    start_run,
    training,
)
from tests.support.waiting import wait_until

QUIET_STEPS = 4
AFTER_STEPS = 3
"""Steps watched after a save of upstream's."""
AWAY_S = 30.0
"""For the committer to notice that the store is gone."""
Pair = tuple[float, float]
"""Mostly ours and the baseline."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="Checkpoints of each size and kind.")
    parser.add_argument("--only", choices=sorted(PARTS))
    options = parser.parse_args()
    if not options.only:
        for part in PARTS:
            subprocess.run([sys.executable, __file__, "--only", part, f"--runs={options.runs}"], check=True)
        return
    configure_device(0)
    with (
        tempfile.TemporaryDirectory(prefix="rectrain-bench-", ignore_cleanup_errors=True) as name,
        seaweed(Path(name)) as s3,
    ):
        PARTS[options.only](s3, Path(name), options.runs)


def stalls(s3: S3, folder: Path, runs: int) -> None:
    """Ours and upstream's by turns, in one training loop."""
    for size in (SMALL, LARGE):
        upstream = Upstream(folder / f"upstream-{size.name}")
        with training(size, folder) as trained:
            run = start_run(s3, f"stall-{size.name}", folder)
            rounds = [(save_ours(trained, run), save_upstreams(trained, upstream)) for _ in range(runs + 1)]
            step = statistics.median(trained.step() for _ in range(2 * QUIET_STEPS))
            run.committer.finish(0)
        name = f"checkpoint_step_{size.name}"
        print(json.dumps({"name": name, "value": round(step * 1e3, 1), "unit": "ms"}), flush=True)
        rounds = rounds[1:]  # the first only warms up
        for index, what in enumerate(("stall", "lost")):
            pairs = [(ours[index] * 1e3, theirs[index] * 1e3) for ours, theirs in rounds]
            for percent in (50, 99):  # of a few runs the 99th percentile is the largest
                report(f"checkpoint_{what}_{size.name}_p{percent}", "ms", pairs, percent)


def save_ours(trained: Trained, run: Run) -> Pair:
    """Stall and time lost [s] of one checkpoint, up to its commit."""

    def save() -> None:
        run.committer.offer(Offer(trained.capture(), epoch=1))

    step = trained.state.position.step + QUIET_STEPS
    return save_and_watch(trained, save, lambda _: run.committed_step() == step)


def save_upstreams(trained: Trained, upstream: Upstream) -> Pair:
    """Stall and time lost [s] of one save in place."""
    return save_and_watch(
        trained, lambda: upstream.save(trained.state), lambda watched: watched == AFTER_STEPS
    )


def save_and_watch(trained: Trained, save: Callable[[], None], done: Callable[[int], bool]) -> Pair:
    """Quiet steps, a save, and steps until it is `done`, which is told their number."""
    quiet = statistics.median([trained.step() for _ in range(QUIET_STEPS)])
    started = time.perf_counter()
    save()
    stall = time.perf_counter() - started
    lost, watched = stall, 0
    while not done(watched):
        lost += trained.step() - quiet
        watched += 1
    return stall, lost


def uploads(s3: S3, folder: Path, runs: int) -> None:
    """The large model's files: by the committer, by the store alone, and by s5cmd."""
    with training(LARGE, folder) as trained:
        snapshot = trained.capture()
    files = folder / "files"
    paths = [files / file.name for file in save_snapshot(files, snapshot)]
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    run = start_run(s3, "upload", folder)
    rounds = []
    for number in range(runs + 1):
        touch(snapshot)
        theirs = costs(lambda n=number: s3.copy(f"{files}/", f"s3://{BUCKET}/s5cmd/{n}/"))  # type: ignore[misc]
        sent = costs(lambda n=number: upload(run, paths, f"ours/{n}"))  # type: ignore[misc]
        rounds.append((theirs, sent, costs(lambda: commit(run, snapshot))))
    run.committer.finish(0)
    rounds = rounds[1:]  # the first only warms up
    for index, name in ((1, "upload"), (2, "commit")):
        rates = [(megabytes / r[index][0], megabytes / r[0][0]) for r in rounds]
        report(f"checkpoint_{name}_100mb_vs_s5cmd", "MB/s", rates, more_is_better=True)
        cpu = [(r[index][1], r[0][1]) for r in rounds]
        report(f"checkpoint_{name}_100mb_vs_s5cmd_cpu", "CPU-s", cpu)


def touch(snapshot: Snapshot) -> None:
    """Change a number in each file, and the step: files that S3 has would be copied by the server."""
    next(iter(snapshot.params.values())).flat[0] += 1
    next(iter(snapshot.optimizer.values())).flat[0] += 1
    snapshot.position.step += 1


def commit(run: Run, snapshot: Snapshot) -> None:
    """From the offer to the record: pickle, hash, send, list, append."""
    run.committer.offer(Offer(snapshot, epoch=1))
    run.wait_committed(snapshot.position.step)


def upload(run: Run, paths: Sequence[Path], prefix: str) -> None:
    """Hash and send, as the committer does."""
    run.store.upload_all(
        [Upload(path, f"{prefix}/{path.name}", sha256_file(path)) for path in paths], limit=4
    )


def resumes(s3: S3, folder: Path, runs: int) -> None:
    """From S3 to a state that trains on; upstream's files come by s5cmd."""
    upstream = Upstream(folder / "upstream")
    place = f"s3://{BUCKET}/upstream/"
    with training(LARGE, folder) as trained:
        run = start_run(s3, "resume", folder)
        run.committer.offer(Offer(trained.capture(), epoch=1))
        run.wait_committed(trained.state.position.step)
        run.committer.finish(0)
        record = run.log.state.newest_first()[0]
        upstream.save(trained.state)
        s3.copy(f"{upstream.folder}/", place)

        def ours() -> None:
            restore(trained.state, fetch(record, run.store, folder / "fetched"))

        def theirs() -> None:
            shutil.rmtree(upstream.folder)
            s3.copy(f"{place}*", f"{upstream.folder}/")
            upstream.load(trained.state)

        pairs = [(costs(ours)[0], costs(theirs)[0]) for _ in range(runs + 1)]
    report("checkpoint_resume_100mb_vs_s5cmd_and_load", "s", pairs[1:])


def memory(s3: S3, folder: Path, _runs: int) -> None:
    """One checkpoint is committed; then the store goes, the best waits, and newer ones come."""
    with training(LARGE, folder) as trained:
        run = start_run(s3, "memory", folder)
        alone = peak_while(lambda: [trained.step() for _ in range(2 * QUIET_STEPS)])
        copy = state_bytes(trained)
        offer_next(trained, run)
        run.wait_committed(trained.state.position.step)
        s3.server.stop()

        def wait_for_store() -> None:
            offer_next(trained, run, accuracy=0.5)
            wait_until(lambda: "committed since" in run.board.message, AWAY_S, "the store isn't missed")
            for _ in range(3):
                offer_next(trained, run)

        away = peak_while(wait_for_store)
        run.store.retries.shrink(0.0)
        run.committer.finish(0)
    line = {"name": "checkpoint_memory_100mb_store_away", "value": round((away - alone) / copy, 2)}
    print(json.dumps(line | {"unit": "copies", "baseline": 2.0}), flush=True)
    print(f"a copy has {copy / 1e6:.0f} MB; training alone peaks at {alone / 1e6:.0f} MB", file=sys.stderr)


def offer_next(trained: Trained, run: Run, accuracy: float | None = None) -> None:
    """A checkpoint after a few more steps, the best one if it has an accuracy."""
    for _ in range(QUIET_STEPS):
        trained.step()
    run.committer.offer(Offer(trained.capture(), 1, accuracy, accuracy is not None))


def state_bytes(trained: Trained) -> int:
    """Model and optimizer."""
    snapshot = trained.capture()
    arrays = [*snapshot.params.values(), *snapshot.optimizer.values()]
    return sum(getattr(array, "nbytes", 0) for array in arrays)


def peak_while(work: Callable[[], object]) -> int:
    """The most resident memory of this process during `work` [bytes]."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    work()
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM:"))) * 1024


def costs(work: Callable[[], object]) -> Pair:
    """Wall clock, and CPU of this process and its ended children [s]."""
    started, before = time.perf_counter(), os.times()
    work()
    wall, after = time.perf_counter() - started, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def report(
    name: str, unit: str, pairs: Sequence[Pair], percent: int = 50, *, more_is_better: bool = False
) -> None:
    """One line of figures, and their spread."""
    ours, theirs = (sorted(column) for column in zip(*pairs, strict=True))
    value, baseline = percentile(ours, percent), percentile(theirs, percent)
    line = {"name": name, "value": round(value, 1 if value > 10 else 3), "unit": unit}
    ratio = round(value / baseline if more_is_better else baseline / value, 3)
    measurable = min(value, baseline) > 0  # a difference of step times may drown in their noise
    line |= {"baseline": round(baseline, 3), "ratio": ratio if measurable else None}
    print(json.dumps(line), flush=True)
    said = ", ".join(f"{v[0]:.3g} to {v[-1]:.3g}" for v in (ours, theirs))
    print(f"{name}: {len(pairs)} runs, {said} {unit}", file=sys.stderr)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Nearest rank; the median as usual."""
    if percent == 50:
        return statistics.median(ordered)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


PARTS = {"stall": stalls, "upload": uploads, "resume": resumes, "memory": memory}


if __name__ == "__main__":
    main()
