"""`rectrain-trainer`: mistakes end in one sentence and their exit code, whatever they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rectrain_api.errors import InvalidSpec
from rectrain_trainer import cli
from rectrain_trainer.manifest import read_manifest
from tests.support.plans import make_manifest


def command(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "rectrain_trainer", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def refused(code: int, *words: str, of: tuple[int, str]) -> None:
    assert of[0] == code, of[1]
    assert "Traceback" not in of[1]
    for word in words:
        assert word in of[1]


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """JSON is YAML."""
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(make_manifest()))
    return str(path)


def test_a_work_folder_that_cannot_be_made(manifest: str) -> None:
    refused(
        66,
        f"{manifest}/x",
        "correct the path",
        of=command("run", "-f", manifest, "--work-dir", f"{manifest}/x"),
    )
    refused(64, manifest, "in the way", of=command("run", "-f", manifest, "--work-dir", manifest))


def test_a_file_is_no_model(manifest: str) -> None:
    refused(66, f"{manifest}/rectrain.json", "correct the path", of=command("predict", manifest, manifest))


def test_a_model_whose_files_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rectrain_trainer import predict_command

    def load(*_: object) -> None:
        raise ValueError("(InvalidArgument) Invalid\n model file.")

    monkeypatch.setattr(predict_command, "Predictor", load)
    monkeypatch.setattr(sys, "argv", ["rectrain-trainer", "predict", "model", "a.png"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 65
    assert "The model in model can't be used (ValueError: (InvalidArgument) Invalid model file.)" in said
    assert "export it again" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [b", "line 1 column 6 isn't YAML: expected ',' or ']'"),
        ("[" * 5000, "nested too deeply"),
        ("kind: RecTrainingJob\nspeck: 1", "apiVersion: is required"),
        (
            "kind: RecTrainingJob\nspec: {model: {preset: 1}}",
            "spec.model.preset: must be text; put it in quotes",
        ),
        (
            "kind: RecTrainingJob\nspec: {model: {preset: x, overrides: {Optimizer.lr.warmup_epoch: 9}}}",
            "spec.model.overrides.Optimizer.lr.warmup_epoch: must be text; write "
            '"Optimizer.lr.warmup_epoch": "9"',
        ),
        (
            "kind: RecTrainingJob\nspec:\n"
            "  model: {preset: x, overrides: {Optimizer: {lr: {warmup_epoch: 9}}}}",
            "spec.model.overrides.Optimizer: must be text, by a dotted key; write "
            '"Optimizer.lr.warmup_epoch": "9"',
        ),
        (
            "kind: RecTrainingJob\nspec: {model: {preset: x, overrides: {sampler: {scales: [[64, 32]]}}}}",
            'write "sampler.scales": "[[64, 32]]"',
        ),
        (
            "kind: RecTrainingJob\nspec: {model: {preset: x, overrides: warmup_epoch=9}}",
            'spec.model.overrides: must be dotted keys with text, such as "Optimizer.lr.warmup_epoch": "9"',
        ),
    ],
)
def test_a_manifest_that_cannot_be_read(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(InvalidSpec) as refused:
        read_manifest(path)
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)


def test_a_manifest_that_is_no_yaml_ends_the_command(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("a: [b")
    refused(78, str(path), "isn't YAML", of=command("run", "-f", str(path)))
