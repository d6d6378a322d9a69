"""Objects of a run's place that a hand deleted, cut off or edited: named, and survived."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import BestRecord, CheckpointRecord, record_key
from rectrain_api.run_log import RunLog
from rectrain_api.spec import RecTrainingJob
from rectrain_trainer.resume import find_newest
from tests.integration.trainer_run.conftest import unfinished
from tests.support.plans import make_manifest
from tests.support.trainer import Place, Trainer

Job = Callable[..., dict[str, Any]]


@pytest.fixture
def job(packed: str, copy: Place) -> Job:
    """The job whose run `copy` is."""

    def make(**changes: Any) -> dict[str, Any]:
        return make_manifest(
            **({"train": packed, "uri": copy.uri, "batch_size": 16, "interval": 2} | changes)
        )

    return make


@pytest.mark.parametrize("name", ["model.pdparams", "model.pdopt", "state.json", "config.yml"])
def test_every_kind_of_damage_to_every_file(copy: Place, job: Job, name: str, tmp_path: Path) -> None:
    newest, *_, oldest = unfinished(copy).state().newest_first()
    key = f"{newest.prefix}/{name}"
    data = copy.store.get_bytes(key)
    edited = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]
    for damaged in (None, b"", data[:-1], edited):
        copy.store.delete([key])
        if damaged is not None:
            copy.store.put_bytes(key, damaged)
        log = RunLog(copy.store, copy.uri)
        log.read()
        log.append = lambda _: None  # type: ignore[method-assign]  # so that it isn't retired yet
        found = find_newest(log, copy.store, tmp_path)
        assert found is not None
        assert oldest.step <= found.record.step < newest.step
    copy.store.put_bytes(key, data)
    log = RunLog(copy.store, copy.uri)
    log.start(
        plan_of(RecTrainingJob.model_validate(job())), now="t", job_uid="", pod_uid="", check=lambda _: None
    )
    found = find_newest(log, copy.store, tmp_path)
    assert found is not None
    assert found.record.step == newest.step


def test_a_damaged_log_is_named_and_the_run_goes_on(trainer: Trainer, copy: Place, job: Job) -> None:
    unfinished(copy)
    records, prefix = copy.records(), copy.state().newest_first()[-1].prefix
    [lost] = [n for n, r in enumerate(records, 1) if isinstance(r, CheckpointRecord) and r.prefix == prefix]
    [best, *_] = [n for n, r in enumerate(records, 1) if isinstance(r, BestRecord)]
    copy.store.put_bytes(record_key(best), b'{"kind":"best","acc')
    copy.store.delete([record_key(lost)])
    files = copy.store.list_keys(f"{prefix}/")
    assert files
    ended = trainer.run(job(epochs=3))
    assert ended.code == 0, ended.errors
    assert f"{copy.uri}/{record_key(lost)} is missing: what that record said is lost" in ended.errors
    assert f"{copy.uri}/{record_key(best)} can't be read (Invalid JSON" in ended.errors
    assert copy.state().attempt == 2
    assert copy.trained(2)[0] == 7, "it goes on where it was"
    assert copy.store.list_keys(f"{prefix}/") == files, "the lost record may be put back"


def test_a_finished_run_whose_model_is_gone_exports_it_again(trainer: Trainer, copy: Place, job: Job) -> None:
    final = copy.state().final
    assert final is not None
    copies = copy.store.list_keys("export/")
    copy.store.delete([*copies, *copy.store.list_keys(f"{final.export_prefix}/"), "report/report.json"])
    fewer = trainer.run(job(epochs=1))
    assert (fewer.code, fewer.result["reason"]) == (66, "InputMissing"), fewer.errors
    assert "finished after 2 epochs, but its exported model is gone" in fewer.message
    assert f"{copy.uri}/{final.export_prefix}/" in fewer.message
    assert "set training.epochs to 2 to have it exported again" in fewer.message
    ended = trainer.run(job())
    assert (ended.code, ended.result["reason"]) == (0, "Completed"), ended.errors
    assert "The run is finished, but its exported model is gone" in ended.errors
    assert copy.store.list_keys("export/") == copies
    assert [r for r in copy.metrics(2) if r["kind"] == "train"] == [], "nothing was trained"
    again = trainer.run(job())
    assert (again.code, again.result["reason"]) == (0, "AlreadyComplete"), again.errors


def test_a_finished_run_misses_nothing_but_its_model(trainer: Trainer, copy: Place, job: Job) -> None:
    """Its best checkpoint, report, metrics and log aren't worth an attempt."""
    state = copy.state()
    assert state.best is not None
    gone = ["best/model.pdparams", f"{state.best.prefix}/model.pdparams", "export/inference.yml"]
    gone += [*copy.store.list_keys("attempts/0001/report/"), *copy.store.list_keys("attempts/0001/metrics/")]
    copy.store.delete(gone)
    ended = trainer.run(job())
    assert (ended.code, ended.result["reason"]) == (0, "AlreadyComplete"), ended.errors
    assert f"what it is made from is gone: {copy.uri}/{state.best.prefix}/model.pdparams" in ended.errors
    assert copy.store.head("export/inference.yml") is not None
