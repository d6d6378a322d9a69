"""The demo's own job, short, as a user sees it: apply, get, wait, logs, describe, explain.

With RECTRAIN_TRANSCRIPT set it is longer, and what the commands print is written into
docs/explanation/transcript.md.
"""

import os
import shlex
from pathlib import Path

import yaml

from examples import demo
from tests.support.rig import ROOT, Rig

TRANSCRIPT = ROOT / "docs" / "explanation" / "transcript.md"
HEAD = """# A run as kubectl shows it

Written by `RECTRAIN_TRANSCRIPT=1 make test-real` on a cluster of two nodes: the digits example of 600 images.
Nothing is left out but lines of `describe` and `logs` where … stands.
"""
LINES = 45
EPOCHS = 25 if os.environ.get("RECTRAIN_TRANSCRIPT") else 3


class Terminal:
    """Runs commands and keeps what they print."""

    def __init__(self) -> None:
        self._kept = [HEAD]

    def __call__(self, command: str, title: str) -> str:
        said = demo.run(*shlex.split(command))
        lines = said.rstrip().splitlines()
        if len(lines) > LINES:
            lines = [*lines[: LINES // 2], "…", *lines[-LINES // 2 :]]
        shown = "\n".join(line.rstrip() for line in lines)
        self._kept.append(f"## {title}\n\n```\n$ {command}\n{shown}\n```\n")
        return said

    def write(self, path: Path) -> None:
        path.write_text("\n".join(self._kept))


def test_from_apply_to_succeeded(rig: Rig, tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / "examples/digits/rectrainingjob.yaml").read_text())
    job["spec"]["data"]["train"] = rig.digits
    job["spec"]["training"] = {"epochs": EPOCHS, "batchSize": 32}
    job["spec"]["checkpoint"]["interval"] = 50 if EPOCHS > 3 else 10
    manifest = tmp_path / "rectrainingjob.yaml"
    manifest.write_text(yaml.safe_dump(job, sort_keys=False))
    rig.jobs.append("digits")
    run = Terminal()

    explained = run("kubectl explain rectrainingjob.spec.checkpoint", "What may be written")
    assert "keepLast" in explained
    assert "Newest checkpoints kept" in explained
    demo.run("kubectl", "apply", "-f", str(manifest))
    rig.wait_committed("digits")
    row = run("kubectl get rectrainingjobs -o wide", "While it trains")
    header, line = row.splitlines()[0].split(), row.splitlines()[1]
    assert header[:4] == ["NAME", "PHASE", "PROGRESS", "EPOCH"]
    assert {"CKPT-AGE", "NODE", "ATTEMPT", "SAMPLES/S"} <= set(header)
    assert "Running" in line
    run("kubectl wait --for=condition=Succeeded rtj/digits --timeout=240s", "Until it is done")
    row = run("kubectl get rectrainingjobs", "Afterwards")
    assert "100%" in row
    assert f"{EPOCHS}/{EPOCHS}" in row
    described = run("kubectl describe rectrainingjob digits", "All that is known of it")
    for words in ("Type:                  Succeeded", "s3://", "Events:"):
        assert words in described
    log = run("kubectl logs job/digits", "What the trainer says")
    for words in ("Staged ", "Attempt 1 of", "accuracy", "Checkpoint of step"):
        assert words in log
    if os.environ.get("RECTRAIN_TRANSCRIPT"):
        run.write(TRANSCRIPT)
