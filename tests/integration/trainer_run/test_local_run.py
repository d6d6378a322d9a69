"""Runs without S3: their place and their data are folders of this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.spec import RecTrainingJob
from rectrain_data.transfer import S3Options, local_uri, open_store
from tests.support.trainer import Place, Trainer, environment, upload_packed

Manifest = Callable[..., dict[str, Any]]


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Trainer]:
    """Knows no S3."""
    trainer = Trainer(tmp_path, environment({}))
    yield trainer
    trainer.close()


def weights(place: Place) -> dict[str, str]:
    """Hashes of the last checkpoint's files."""
    return {f.name: f.sha256 for f in place.state().newest_first()[0].files if f.name != "config.yml"}


def test_killed_and_resumed_in_a_local_folder_it_ends_as_one_in_s3(
    trainer: Trainer,
    laptop: Trainer,
    place: Place,
    manifest: Manifest,
    samples: list[tuple[str, bytes]],
    tmp_path: Path,
) -> None:
    job = manifest(epochs=8, interval=2, training={"deterministic": True})
    in_s3 = trainer.start(job)

    store = open_store(local_uri(tmp_path / "run"), S3Options())
    here = Place(store.uri, store)
    data = upload_packed(samples, tmp_path / "set", open_store(local_uri(tmp_path / "data"), S3Options()))
    plan = tmp_path / "run.json"
    whole = plan_of(RecTrainingJob.model_validate(job))
    changes = {
        "data": whole.data.model_copy(update={"train": data}),
        "checkpoint": whole.checkpoint.model_copy(update={"uri": here.uri}),
    }
    plan.write_text(whole.model_copy(update=changes).to_json())
    killed = laptop.start_with(["run", "--plan", str(plan)])
    killed.until(here.steps, "a checkpoint")
    killed.kill()
    last = here.steps()[-1]
    ended = laptop.start_with(["run", "--plan", str(plan)]).wait()
    assert ended.code == 0, ended.errors
    assert "S3" not in ended.errors
    assert here.trained(2)[0] == last + 1

    assert in_s3.wait().code == 0
    assert weights(here) == weights(place)
    assert [r.kind for r in here.records()][-2:] == ["final", "attempt-end"]
    for kind in ("export", "best", "report"):
        assert [Path(k).name for k in here.store.list_keys(f"{kind}/")] == [
            Path(k).name for k in place.store.list_keys(f"{kind}/")
        ]
