"""The demo succeeds, and what it exports is read by PaddleOCR itself."""

import json
import subprocess
from pathlib import Path

import pytest

from examples import demo
from rectrain_data.packed import PackedSet
from tests.e2e.conftest import DemoRun
from tests.support.rig import ROOT, Rig

CONSUMER = ROOT / ".venv" / "consumer" / "bin" / "python"
READER = """
import json, sys
from paddleocr import TextRecognition
model = TextRecognition(model_name="en_PP-OCRv5_mobile_rec", model_dir=sys.argv[1])
for result in model.predict(sys.argv[2:], batch_size=1):
    print("READ " + json.dumps(result.json["res"]["rec_text"]))
"""


@pytest.mark.timeout(1000)
def test_demo_trains_a_model_to_the_end(demo_run: DemoRun) -> None:
    assert demo_run.exit_code == 0, demo_run.said
    assert "Succeeded: 100%, accuracy" in demo_run.said
    status = demo.status_of("digits")
    assert status["phase"] == "Succeeded"
    assert status["progress"]["percent"] == 100
    assert status["metrics"]["best"]["accuracy"] >= 0.95
    row = demo.kubectl_row("digits")
    assert (row["PHASE"], row["PROGRESS"]) == ("Succeeded", "100%")
    demo.run("kubectl", "wait", "--for=condition=Succeeded", "rtj/digits", "--timeout=5s")


@pytest.mark.timeout(1000)
def test_paddleocr_reads_the_export(demo_run: DemoRun, rig_files: Rig, tmp_path: Path) -> None:
    """PyPI's paddleocr, as its users install it, reads what training read."""
    assert demo_run.exit_code == 0, demo_run.said
    s3, place = demo.s3_client(), "runs/digits/export/"
    model = tmp_path / "model"
    model.mkdir()
    for item in s3.list_objects_v2(Bucket=demo.BUCKET, Prefix=place)["Contents"]:
        s3.download_file(demo.BUCKET, item["Key"], str(model / item["Key"].removeprefix(place)))
    packed = rig_files.work / "small" / "packed"
    samples = demo.held_out(packed, tmp_path / "images", 8)
    assert len(PackedSet.open(packed, split="eval")) >= len(samples)
    paths = [str(p) for p, _ in samples]
    ours = json.loads(demo.run("rectrain-trainer", "predict", str(model), *paths, "--json"))
    done = subprocess.run(
        [CONSUMER, "-c", READER, str(model), *paths],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"},
    )
    theirs = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("READ ")]
    assert theirs == [r["text"] for r in ours], done.stderr[-2000:]
    right = sum(text == label for text, (_, label) in zip(theirs, samples, strict=True))
    assert right >= len(samples) - 1
