"""Runs without S3: their place and their data are folders of this machine."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.spec import RecTrainingJob
from rectrain_data import demo
from rectrain_data.transfer import S3Options, local_uri, open_store
from tests.support.trainer import Place, Trainer, environment, upload_packed
from tests.support.upstream_config import make_config, write_config, write_digits

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


def test_a_config_of_paddleocr_trains_is_interrupted_goes_on_and_leaves_a_model(
    laptop: Trainer, samples: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    """Trained on an LMDB, by a loader with a process of its own; evaluated on a label file."""
    data, output = tmp_path / "data", tmp_path / "output/rec"
    write_digits(data, train=0, held_out=40)
    (data / "images/0.png").write_bytes(b"no image")
    (data / "lmdb").mkdir()
    with lmdb.open(str(data / "lmdb"), map_size=1 << 30) as env, env.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"160")
        for number in range(1, 161):
            text, png = demo.sample(9, number)
            transaction.put(b"image-%09d" % number, png)
            transaction.put(b"label-%09d" % number, text.encode())
    config = make_config(data, output)
    config["Train"]["dataset"] |= {"name": "LMDBDataSet", "data_dir": str(data / "lmdb")}
    del config["Train"]["dataset"]["label_file_list"]
    file = write_config(tmp_path / "rec.yml", config)

    def command(*pairs: str) -> list[str]:
        return ["run", "-c", str(file), "-o", "Train.loader.num_workers=1", *pairs]

    here = Place(local_uri(output), open_store(local_uri(output), S3Options()))
    first = laptop.start_with(command("Global.epoch_num=100"))
    first.until(lambda: here.state().starts and here.metrics(1), "the first step")
    first.process.send_signal(signal.SIGINT)
    stopped = first.wait()
    assert stopped.code == 75, stopped.errors
    assert "The same command goes on from the last checkpoint." in stopped.errors
    assert "Global.print_batch_step isn't used" in stopped.errors
    assert "RD011 at" in stopped.errors
    last = here.state().newest_first()[0]

    changed = laptop.start_with(command("Train.loader.batch_size_per_card=8")).wait()
    assert changed.code == 78
    assert (
        "(Train.loader.batch_size_per_card: 16 → 8): put it back, or give this run a Global.save_model_dir"
        in (changed.errors)
    )

    ended = laptop.start_with(command(f"Global.epoch_num={last.epoch + 1}")).wait()
    assert ended.code == 0, ended.errors
    assert here.trained(2)[0] == last.step + 1
    assert here.report()["checks"]["trainSamples"] == 160
    page = laptop.command("report", str(output), "-o", str(tmp_path / "page.html"))
    assert (page.returncode, page.stdout) == (0, f"{tmp_path / 'page.html'}\n"), page.stderr
    whole = laptop.command("checkpoints", "verify", str(output))
    assert whole.returncode == 0, whole.stderr
    assert f"of {here.uri} are whole" in whole.stdout
    page = tmp_path / "page.html"
    made = laptop.command("report", str(output), "-o", str(page))
    assert made.returncode == 0, made.stderr
    assert "Interrupted" in page.read_text()
    image = tmp_path / "image.png"
    image.write_bytes(samples[0][1])
    read = laptop.command("predict", str(output / "export"), str(image), "--json")
    assert read.returncode == 0, read.stderr
    assert set(json.loads(read.stdout)[0]["text"]) <= set("0123456789")
