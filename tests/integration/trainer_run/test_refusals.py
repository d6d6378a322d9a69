"""What can't work ends with the right code, before a step, with a sentence that names the object."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import CheckpointRecord, checkpoint_prefix
from rectrain_api.report import TERMINATION_LIMIT_BYTES
from rectrain_api.run_log import RunLog
from rectrain_api.spec import RecTrainingJob
from tests.support.plans import make_manifest
from tests.support.trainer import Ended, Place, Trainer

Manifest = Callable[..., dict[str, Any]]
Loose = Callable[..., str]


def refused(ended: Ended, code: int, reason: str, *said: str) -> None:
    """Code, reason, sentence; no traceback; the result fits where Kubernetes keeps it."""
    assert (ended.code, ended.result["exitCode"], ended.result["reason"]) == (code, code, reason), (
        ended.errors
    )
    for words in said:
        assert words in ended.message
    assert "Traceback" not in ended.errors
    assert len(str(ended.result).encode()) < TERMINATION_LIMIT_BYTES


def test_a_missing_bucket(trainer: Trainer, manifest: Manifest) -> None:
    ended = trainer.run(manifest(uri="s3://no-such-bucket/run"))
    refused(ended, 66, "InputMissing", "no-such-bucket", "isn't there", "create it, or correct the URI")


def test_a_missing_bucket_of_the_data(trainer: Trainer, manifest: Manifest) -> None:
    ended = trainer.run(manifest(train="s3://no-such-bucket/set", checkpoint={"fencing": "Off"}))
    refused(ended, 66, "InputMissing", "no-such-bucket", "isn't there", "create it, or correct the URI")


def test_a_missing_label_file(trainer: Trainer, manifest: Manifest, place: Place, bucket: str) -> None:
    ended = trainer.run(manifest(train=f"{bucket}/nothing/labels.txt"))
    refused(ended, 66, "InputMissing", f"{bucket}/nothing/labels.txt", "nor a label file", "data.train")
    assert place.records() == [], "nothing was trained, so nothing is in the log"


def test_a_missing_image(trainer: Trainer, manifest: Manifest, loose: Loose) -> None:
    uri = loose(data={5: None, 7: None})
    ended = trainer.run(manifest(train=uri))
    image = uri.replace("labels.txt", "images/5.png")
    refused(ended, 66, "InputMissing", f"{image} ({uri} line 6) isn't there, nor are 1 more")


def test_an_unreadable_image(trainer: Trainer, manifest: Manifest, loose: Loose) -> None:
    uri = loose(data={3: b"not an image at all"})
    ended = trainer.run(manifest(train=uri))
    refused(ended, 65, "DatasetInvalid", "RD011", f"{uri} line 4", "can't be decoded", "replace it")


def test_characters_outside_the_dictionary(
    trainer: Trainer, manifest: Manifest, loose: Loose, bucket: str, place: Place
) -> None:
    place.store.put_bytes("digits.txt", "".join(f"{d}\n" for d in range(10)).encode())
    uri = loose(labels={2: "1฿2"})
    job = manifest(train=uri, data={"dictionary": f"{place.uri}/digits.txt"})
    refused(trainer.run(job), 65, "DatasetInvalid", "U+0E3F", f"{uri} line 3", "add them to the dictionary")


def test_what_a_check_refuses(trainer: Trainer, manifest: Manifest, loose: Loose) -> None:
    """It is printed once, of label files and samples alike, with what upstream would have done."""
    uri = loose(labels={2: "1" * 13, 4: "12\t34"}, data={9: None})
    job = trainer.folder / "check.yaml"
    job.write_text(json.dumps(manifest(train=uri)))
    ended = trainer.start_with(["check", "-f", str(job)]).wait()
    refused(ended, 65, "DatasetInvalid", "see the findings (RD005, RD013, RD014, RD010)")
    for place in (f"{uri} line 3 (images/2.png, 13 characters", f"{uri} line 5", f"{uri} line 10"):
        assert place in ended.errors
    assert ended.errors.count("shorten it") == 1
    assert "1 label dropped (0 empty, 1 too long, 0 wholly unknown), swapped for another" in ended.errors


def test_a_broken_line_of_the_label_file(trainer: Trainer, manifest: Manifest, loose: Loose) -> None:
    uri = loose(labels={2: "12\t34"})
    refused(trainer.run(manifest(train=uri)), 65, "DatasetInvalid", f"{uri} line 3", "second tab")


def test_too_few_samples(trainer: Trainer, manifest: Manifest, loose: Loose) -> None:
    uri = loose(count=1)
    refused(trainer.run(manifest(train=uri)), 65, "DatasetInvalid", uri, "data.eval")


def test_a_wrong_key(trainer: Trainer, manifest: Manifest) -> None:
    ended = trainer.run(manifest(), AWS_SECRET_ACCESS_KEY="wrong")
    refused(ended, 77, "PermissionRefused", "check AWS_SECRET_ACCESS_KEY")


def test_a_store_that_is_away(trainer: Trainer, manifest: Manifest) -> None:
    started = time.monotonic()
    ended = trainer.run(
        manifest(), AWS_ENDPOINT_URL_S3="http://127.0.0.1:9", RECTRAIN_S3_DEADLINE_SECONDS="3"
    )
    refused(ended, 69, "StoreUnavailable", "http://127.0.0.1:9", "refuses connections")
    assert re.search(r"Waiting for S3 since \d\d:\d\d:\d\d UTC", ended.errors)
    assert time.monotonic() - started > 2


def test_the_manifests_variables_win_over_the_users(trainer: Trainer, manifest: Manifest) -> None:
    """As in a pod, where nothing of the user's is."""
    env = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "RECTRAIN_S3_DEADLINE_SECONDS": "1"}
    job = manifest(replicas={"env": [{"name": name, "value": value} for name, value in env.items()]})
    refused(trainer.run(job), 69, "StoreUnavailable", "http://127.0.0.1:9", "refuses connections")


def test_a_cache_that_is_too_small(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    ended = trainer.run(manifest(data={"cache": {"size": "1Ki"}}))
    refused(ended, 71, "DiskTooSmall", "data.cache.size allows 1024 bytes")
    assert re.search(r"needs \d+ bytes", ended.message)


def test_resume_never_on_a_place_that_is_taken(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    job = manifest(resume="Never")
    RunLog(place.store, place.uri).start(
        plan_of(RecTrainingJob.model_validate(job)), now="t", job_uid="", pod_uid="", check=lambda _: None
    )
    ended = trainer.run(job)
    refused(ended, 78, "RunConflict", place.uri, "1 earlier attempt(s)", "checkpoint.resume is Never")
    assert "set it to Auto to go on, or choose an empty checkpoint.uri" in ended.message
    assert len(place.records()) == 1


def test_a_place_with_a_log_that_is_not_ours(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    place.store.put_bytes("log/00000001.json", b"{}")
    refused(trainer.run(manifest()), 78, "RunConflict", "log/00000001.json", "checkpoint.uri of its own")


def test_fewer_epochs_than_the_place_has_begun(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    log = RunLog(place.store, place.uri)
    plan = plan_of(RecTrainingJob.model_validate(manifest(epochs=5)))
    log.start(plan, now="t", job_uid="", pod_uid="", check=lambda _: None)
    prefix = checkpoint_prefix(1, 8)
    log.append(CheckpointRecord(attempt=1, time="t", prefix=prefix, step=8, epoch=3, files=[]))
    ended = trainer.run(manifest(epochs=2))
    refused(ended, 78, "RunConflict", f"{place.uri} is already at epoch 3, and 2 are asked for")
    assert "set training.epochs to no fewer, or give this run a checkpoint.uri" in ended.message
    assert len(place.records()) == 2, "no attempt is taken"


def test_a_gpu_that_is_not_there(trainer: Trainer, manifest: Manifest) -> None:
    refused(trainer.run(manifest(replicas={"gpusPerNode": 1})), 71, "DeviceUnavailable", "gpusPerNode to 0")


def test_a_manifest_that_cannot_work(trainer: Trainer) -> None:
    job = make_manifest()
    job["spec"]["model"]["preset"] = "no_such_model"
    refused(trainer.run(job), 78, "InvalidSpec", '"no_such_model" is unknown', "svtr_nano")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run"], 64, "Name one thing to run: -f job.yaml"),
        (["run", "--no-such-option"], 64, "No such option"),
        (["run", "-f", "/no/such.yaml"], 66, "can't be read"),
        (["predict", "/no/such/model", "x.png"], 66, "name the folder of an exported model"),
        (["predict", "s3://no-such-bucket/export", "x.png"], 66, "no-such-bucket"),
    ],
)
def test_the_command_line(trainer: Trainer, arguments: list[str], code: int, said: str) -> None:
    ended = trainer.command(*arguments)
    assert ended.returncode == code, ended.stderr
    assert said in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
