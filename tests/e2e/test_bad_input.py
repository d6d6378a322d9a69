"""Bad input ends the run at once: Failed, no restart, a message that names the object and the way out."""

from typing import Any

import pytest

from examples import demo
from tests.support.rig import Rig, failed_reason


@pytest.fixture(scope="module")
def loose(rig: Rig) -> str:
    """A label file with loose images, one of which is no image."""
    s3 = demo.s3_client()
    images = rig.work / "small" / "loose"
    labels = (images / "labels.txt").read_text().splitlines()[:40]
    for line in labels:
        name = line.split("\t")[0]
        s3.upload_file(str(images / name), demo.BUCKET, f"loose/{name}")
    broken = labels[7].split("\t")[0]
    s3.put_object(Bucket=demo.BUCKET, Key=f"loose/{broken}", Body=b"this is no image")
    s3.put_object(Bucket=demo.BUCKET, Key="loose/labels.txt", Body="\n".join(labels).encode() + b"\n")
    return broken


def refused(rig: Rig, name: str, **changes: Any) -> dict[str, Any]:
    rig.apply(name, **changes)
    status = rig.wait_phase(name, "Failed", 120)
    assert status["restarts"] == {"failure": 0, "oom": 0, "disruption": 0, "suspend": 0}
    assert "Traceback" not in status["message"]
    return status


def test_missing_bucket(rig: Rig) -> None:
    status = refused(rig, "no-bucket", **{"data.train": "s3://no-such-bucket/digits"})
    assert "s3://no-such-bucket" in status["message"]
    assert failed_reason(status) == "InputMissing"


def test_missing_label_file(rig: Rig) -> None:
    uri = f"s3://{demo.BUCKET}/loose/nothing.txt"
    status = refused(rig, "no-labels", **{"data.train": uri})
    assert uri in status["message"]
    assert failed_reason(status) == "InputMissing"


def test_character_outside_the_dictionary(rig: Rig) -> None:
    body = "\n".join("012345689").encode() + b"\n"
    demo.s3_client().put_object(Bucket=demo.BUCKET, Key="no-seven.txt", Body=body)
    status = refused(rig, "no-seven", **{"data.dictionary": f"s3://{demo.BUCKET}/no-seven.txt"})
    assert '"7"' in status["message"]
    assert "dictionary" in status["message"]
    assert failed_reason(status) == "DatasetInvalid"


def test_unreadable_image(rig: Rig, loose: str) -> None:
    status = refused(rig, "broken-image", **{"data.train": f"s3://{demo.BUCKET}/loose/labels.txt"})
    assert loose in status["message"]
    assert failed_reason(status) == "DatasetInvalid"
