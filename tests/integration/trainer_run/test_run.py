"""Whole runs: to the end, and through everything that interrupts them."""

import itertools
import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import (
    AttemptEnd,
    BestRecord,
    CheckpointRecord,
    FinalRecord,
)
from rectrain_api.report import Stage
from rectrain_api.run_log import RunLog
from rectrain_api.spec import RecTrainingJob
from rectrain_data.transfer import sha256_file
from tests.support.report_server import ReportServer, make_certificate
from tests.support.trainer import Ended, Place, Trainer

Manifest = Callable[..., dict[str, Any]]
FIGURES = (
    "accuracy",
    "accuracyAsTrained",
    "characterErrorRate",
    "normEditDistance",
    "graphemeErrorRate",
    "graphemeNormEditDistance",
    "upstreamAcc",
    "upstreamNormEditDis",
)
LONG = 500
"""More epochs than a test waits for."""


def test_a_run_from_the_manifest_to_the_exported_model(
    trainer: Trainer, place: Place, manifest: Manifest, samples: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # short: names of sockets go below
        ended = trainer.run(
            manifest(epochs=2, interval=2, workers=1, export={"onnx": True}), TMPDIR=temporary
        )
        assert list(Path(temporary).iterdir()) == []
    assert ended.code == 0, ended.errors
    assert ended.result["reason"] == "Completed"
    assert ended.result["progress"]["percent"] == 100
    assert ended.result["model"]["uri"] == f"{place.uri}/export"
    assert "Trained 2 epochs to accuracy" in ended.errors.splitlines()[-1]
    assert "keys from AWS_ACCESS_KEY_ID" in ended.errors

    records = place.records()
    kinds = [r.kind for r in records]
    assert kinds[0] == "attempt-start"
    assert kinds[-2:] == ["final", "attempt-end"]
    assert place.steps()[-1] == 6
    final = next(r for r in records if isinstance(r, FinalRecord))
    keys = {o.key: o.size for o in place.store.list_objects()}
    for file in final.export_files:
        assert keys[f"{final.export_prefix}/{file.name}"] == keys[f"export/{file.name}"] == file.size
    assert {"inference.onnx", "README.md", "SHA256SUMS"} <= {f.name for f in final.export_files}
    assert final.metrics["parityEngines"] == ["Paddle inference", "onnxruntime"]
    assert "Export: Of 16 held-out images (" in ended.errors
    assert "(16 images, outputs within" in place.store.get_bytes("export/README.md").decode()
    assert {"best/model.pdparams", "report/report.json", "attempts/0001/log/000001.txt"} <= keys.keys()
    rows = place.metrics(1)
    assert rows[0]["step"] == 1
    assert [r["epoch"] for r in rows if r["kind"] == "eval"] == [1, 2]
    assert_figures(ended, place, final, eval_row(rows, final.metrics["step"]))

    again = trainer.run(manifest(epochs=2, interval=2, workers=1))
    assert (again.code, again.result["reason"]) == (0, "AlreadyComplete")
    assert len(place.records()) == len(records), "a run that is complete must leave no trace"
    place.store.delete(["export/inference.yml"])
    assert trainer.run(manifest(epochs=2, workers=1)).code == 0
    assert place.store.head("export/inference.yml") is not None

    image = tmp_path / "image.png"
    image.write_bytes(samples[0][1])
    read = trainer.command("predict", f"{place.uri}/export", str(image), "--json")
    assert read.returncode == 0, read.stderr
    [row] = json.loads(read.stdout)
    assert row["image"] == str(image)
    assert set(row["text"]) <= set("0123456789")

    other = trainer.run(manifest(name="other"))
    assert other.code == 78
    assert f"{place.uri} belongs to the run default/digits, not to default/other" in other.message
    changed = trainer.run(manifest(batch_size=8))
    assert changed.code == 78
    assert "training.batchSize: 16 → 8" in changed.message


def eval_row(rows: list[dict[str, Any]], step: int) -> dict[str, Any]:
    return next(r for r in rows if (r["kind"], r["step"]) == ("eval", step))


def assert_figures(ended: Ended, place: Place, final: FinalRecord, row: dict[str, Any]) -> None:
    """The same in the row, `final`, the report and status; and in the log."""
    figures = {name: row[name] for name in FIGURES}
    assert {name: final.metrics[name] for name in FIGURES} == figures
    report, shown = place.report(), ended.result["metrics"]
    assert {name: report["metrics"][name] for name in FIGURES} == figures
    assert figures in [{name: row[name] for name in FIGURES} for row in report["evaluations"]]
    assert report["quality"]["figures"]["upstreamAcc"]["value"] == figures["upstreamAcc"]
    assert sum(row["samples"] for row in report["quality"]["byLength"]) == row["samples"]
    for name in ("accuracy", "characterErrorRate", "normEditDistance", "upstreamAcc"):
        assert shown[name] == figures[name]
    assert f"accuracy {row['accuracy']:.1%}, CER {row['characterErrorRate']:.1%}" in ended.errors


def test_a_pod_runs_a_plan_and_reports(
    trainer: Trainer, place: Place, manifest: Manifest, tmp_path: Path
) -> None:
    """As the operator starts it: run.json, everything else by environment, no HOME, another folder."""
    plan = tmp_path / "run.json"
    plan.write_text(
        plan_of(
            RecTrainingJob.model_validate(manifest(epochs=10, training={"evalInterval": "5 epochs"}))
        ).to_json()
    )
    token, work = tmp_path / "token", tmp_path / "work"
    token.write_text("the-token")
    ca, key = make_certificate(tmp_path / "tls")
    server = ReportServer(ca, key)
    try:
        ended = trainer.start_with(
            ["run", "--plan", str(plan)],
            HOME="/nonexistent",
            RECTRAIN_WORK_DIR=str(work),
            RECTRAIN_REPORT_URL=f"https://127.0.0.1:{server.port}",
            RECTRAIN_REPORT_CA=str(ca),
            RECTRAIN_TOKEN_FILE=str(token),
            RECTRAIN_JOB_UID="job-uid",
            RECTRAIN_POD_UID="pod-uid",
        ).wait()
    finally:
        server.stop()
    assert ended.code == 0, ended.errors
    started = place.state().starts[0]
    assert (started.job_uid, started.pod_uid) == ("job-uid", "pod-uid")
    assert {path for path, _, _ in server.got} == {"/v1/namespaces/default/rectrainingjobs/digits/progress"}
    assert {authorization for _, authorization, _ in server.got} == {"Bearer the-token"}
    reports = [report for _, _, report in server.got]
    stages = [stage for stage, _ in itertools.groupby(r.stage for r in reports)]
    assert stages[0] == Stage.STAGING
    assert stages[-1] == Stage.FINISHED
    assert Stage.TRAINING in stages
    sequences = [r.sequence for r in reports]
    assert sequences == sorted(set(sequences))
    last = reports[-1]
    assert last.progress is not None
    assert last.progress.percent == 100
    assert last.model is not None
    assert last.model.uri == f"{place.uri}/export"
    assert last.data is not None
    assert (last.data.train_samples, last.data.eval_samples) == (48, 16)
    assert last.devices is not None
    assert last.devices.kind == "cpu"
    assert last.checkpoint is not None
    assert last.checkpoint.latest is not None


def test_a_check_leaves_no_trace(trainer: Trainer, place: Place, manifest: Manifest) -> None:
    """On stdout is what was found, and nothing else."""
    ended = trainer.command("check", "-f", tmp_job(trainer, manifest()), "--json")
    assert ended.returncode == 0, ended.stderr
    assert "can be trained: data, model and S3 are fine" in ended.stderr
    found = json.loads(ended.stdout)
    assert (found["trainSamples"], found["evalSamples"], found["imagesDecoded"]) == (48, 16, 64)
    assert [f["code"] for f in found["findings"]] == ["RD022"]
    assert place.store.list_keys("") == []


def test_bad_samples_are_left_out_where_that_was_asked_for(
    trainer: Trainer, place: Place, manifest: Manifest, loose: Callable[..., str]
) -> None:
    """By a loader with workers, and in the evaluation; the report says so."""
    place.store.put_bytes("digits.txt", "".join(f"{d}\n" for d in range(10)).encode())
    data = {"validation": "Warn", "dictionary": f"{place.uri}/digits.txt"}
    broken = loose(20, data={3: b"no image"}, labels={5: "1x", 7: "1" * 13})
    job = manifest(train=broken, workers=1, batch_size=4, data=data | {"eval": loose(8, data={2: b""})})
    ended = trainer.run(job)
    assert ended.code == 0, ended.errors
    assert "RD011 at " in ended.errors
    checks = place.report()["checks"]
    assert (checks["trainSamples"], checks["evalSamples"], checks["leftOut"]) == (17, 7, 4)
    assert [e["step"] for e in place.report()["evaluations"]] == [5, 10]
    assert place.report()["metrics"]["samples"] == 7
    assert (checks["upstream"]["train"]["swapped"], checks["upstream"]["train"]["shortened"]) == (2, 1)


def test_a_second_run_over_a_shared_volume_downloads_nothing(
    trainer: Trainer, manifest: Manifest, tmp_path: Path
) -> None:
    job = tmp_job(trainer, manifest(data={"cache": {"claimName": "sets"}}))
    first, second = (
        trainer.start_with(["check", "-f", job], RECTRAIN_CACHE_DIR=str(tmp_path / "volume")).wait()
        for _ in range(2)
    )
    assert (first.code, second.code) == (0, 0), second.errors
    assert "were here already" not in first.errors
    assert "Staged 0 B in" in second.errors
    kept = {p.name for p in (tmp_path / "volume" / "sha256").iterdir() if p.suffix != ".lock"}
    assert kept
    assert all(sha256_file(tmp_path / "volume" / "sha256" / name) == name for name in kept)


def tmp_job(trainer: Trainer, manifest: dict[str, Any]) -> str:
    path = trainer.folder / "check.yaml"
    path.write_text(json.dumps(manifest))
    return str(path)


def test_killed_in_mid_run_it_goes_on_from_the_last_checkpoint(
    trainer: Trainer, place: Place, manifest: Manifest
) -> None:
    run = trainer.start(manifest(epochs=LONG, interval=2))
    run.until(lambda: len(place.steps()) >= 3, "three checkpoints")
    run.kill()
    state = place.state()
    last, best = state.newest_first()[0], state.best
    assert last.step % 2 == 0 or last.step % 3 == 0
    epochs = last.step // 3 + 2

    ended = trainer.run(manifest(epochs=epochs, interval=2))
    assert ended.code == 0, ended.errors
    first = place.trained(2)[0]
    assert first == last.step + 1, "steps continue where the last committed checkpoint is"
    records = [r for r in place.records() if r.attempt == 2]
    steps = [r.step for r in records if isinstance(r, CheckpointRecord)]
    assert steps == sorted(set(steps))
    assert steps[-1] == epochs * 3
    assert best is not None
    for record in records:
        if isinstance(record, BestRecord):
            assert record.accuracy > best.accuracy, "a worse one must not replace the best"


def test_sigterm_commits_a_checkpoint_and_a_damaged_one_is_passed_over(
    trainer: Trainer, place: Place, manifest: Manifest
) -> None:
    run = trainer.start(manifest(epochs=LONG, interval=1000))
    run.until(lambda: len(place.metrics(1)) >= 1, "the first step")
    run.process.send_signal(signal.SIGTERM)
    ended = run.wait()
    assert ended.code == 75, ended.errors
    assert ended.result["reason"] == "Interrupted"
    assert "its checkpoint is committed" in ended.message
    end = place.records()[-1]
    assert isinstance(end, AttemptEnd)
    assert end.reason == "Interrupted"
    stopped = place.state().newest_first()[0]
    assert stopped.step == end.step

    earlier = trainer.start(manifest(epochs=LONG, interval=2))
    earlier.until(lambda: place.state().newest_first()[0].step > stopped.step, "another checkpoint")
    earlier.kill()
    kept = place.state().newest_first()
    damaged = kept[0]
    key = f"{damaged.prefix}/model.pdparams"
    data = bytearray(place.store.get_bytes(key))
    data[len(data) // 2] ^= 1
    place.store.put_bytes(key, bytes(data))

    ended = trainer.run(manifest(epochs=damaged.epoch, interval=1000))
    assert ended.code == 0, ended.errors
    assert f"The checkpoint of step {damaged.step} is damaged" in ended.errors
    assert place.trained(3)[0] == kept[1].step + 1
    assert damaged.prefix not in [c.prefix for c in place.state().checkpoints]
    assert not place.store.list_keys(f"{damaged.prefix}/")


def test_a_newer_attempt_fences_the_pod(trainer: Trainer, place: Place, manifest: Manifest) -> None:
    job = manifest(epochs=LONG, interval=2)
    run = trainer.start(job)
    run.until(place.steps, "a checkpoint")
    newer = RunLog(place.store, place.uri)
    newer.start(
        plan_of(RecTrainingJob.model_validate(job)), now="t", job_uid="", pod_uid="", check=lambda _: None
    )
    ended = run.wait()
    assert (ended.code, ended.result["reason"]) == (76, "Fenced")
    assert "attempt 2 has taken over" in ended.message
    after = place.records()
    assert [r.attempt for r in after if r.attempt == 1 or r.kind == "attempt-start"][-1] == 2
    assert after[-1].attempt == 2


def test_a_config_of_paddleocr_in_s3_is_the_run_that_its_preset_is(
    trainer: Trainer, place: Place, manifest: Manifest
) -> None:
    """The preset's own model, written as a config, leaves a run that the preset finds complete."""
    text = (Path(__file__).parents[2] / "data/configs/svtr_nano.yml").read_text("utf-8")
    place.store.put_bytes("mine.yml", text.replace("Global:", "Global:\n  model_name: svtr_nano").encode())
    config = {"preset": None, "config": {"uri": f"{place.uri}/mine.yml"}}
    ended = trainer.run(manifest(epochs=1, model=config))
    assert ended.code == 0, ended.errors
    assert f"The model is that of {place.uri}/mine.yml (sha256 " in ended.errors
    assert "Train.dataset is replaced by data.train, but for its transforms" in ended.errors
    kept = place.store.get_bytes(f"{place.state().newest_first()[0].prefix}/config.yml").decode()
    assert "name: SVTRNet" in kept

    ours = {"model": {"preset": "svtr_nano"}, "data": {"dictionary": "en_dict"}}
    again = trainer.run(manifest(epochs=1, **ours))
    assert (again.code, again.result["reason"]) == (0, "AlreadyComplete"), again.errors
