"""Export and predict: the exported folder alone reads what the trained model reads."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import yaml

from rectrain_api.errors import DatasetInvalid, InputMissing, Interrupted
from rectrain_trainer import export as export_module
from rectrain_trainer.evaluate import EvalSet, Preparation
from rectrain_trainer.export import FILES, _squeeze, export
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_model
from rectrain_trainer.model_card import card_text, write_card
from rectrain_trainer.predict import Prediction, Predictor, Unread, load_card
from tests.support.plans import make_plan
from tests.unit.trainer_learn.digits import draw
from tests.unit.trainer_learn.exports import CONSUMER, Done
from tests.unit.trainer_learn.recipes import loose


def test_it_holds_what_paddleocr_reads(done: Done) -> None:
    assert {path.name for path in done.folder.iterdir()} == {*FILES, "inference.onnx"}
    content = yaml.safe_load((done.folder / "inference.yml").read_text())
    assert content["Global"]["model_name"] == "en_PP-OCRv5_mobile_rec"
    operators = [next(iter(op)) for op in content["PreProcess"]["transform_ops"]]
    assert operators == ["DecodeImage", "MultiLabelEncode", "RecResizeImg", "KeepKeys"]
    assert content["PostProcess"]["character_dict"] == list("0123456789")


def test_it_reads_from_its_folder_alone(done: Done, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(done.folder, moved)
    image = tmp_path / "a.png"
    image.write_bytes(draw("123", random.Random(1)))
    [prediction] = Predictor(moved).predict([image])
    assert isinstance(prediction, Prediction)
    assert prediction.path == image
    assert prediction.text
    assert 0 < prediction.confidence <= 1


def test_any_width_and_batch_is_taken(done: Done) -> None:
    """PaddleOCR widens its input to the image's ratio; a fixed width must not end in a broadcast error."""
    predictor = Predictor(done.folder)
    for width in (done.recipe.image_shape[2], 333, 640):
        assert len(predictor.read([np.zeros((3, 32, width), np.float32)] * 3)) == 3


def test_a_wide_image_is_squeezed_as_training_squeezes_it() -> None:
    encoded = draw("12345678", random.Random(4))
    row = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert row.shape[1] > 64
    trained_on = Preparation([3, 32, 64], padded=True)(encoded)
    as_it_is = (row.transpose(2, 0, 1)[None].astype(np.float32) / 255 - 0.5) / 0.5
    squeezed = _squeeze(paddle.to_tensor(as_it_is), 64).numpy()[0]
    assert np.abs(squeezed - trained_on).max() < 2.1 / 255  # OpenCV rounds to whole grey levels
    assert np.array_equal(_squeeze(paddle.to_tensor(as_it_is), row.shape[1]).numpy(), as_it_is)


def test_the_card_says_how_wide_it_reads(done: Done) -> None:
    card = json.loads((done.folder / "rectrain.json").read_text())
    _, height, width = done.recipe.image_shape
    assert card["max_aspect"] == (width if done.recipe.fixed_width else 3200) / height
    assert card["characters"] == list("0123456789")
    assert card["use_space_char"] is True


METRICS = {
    "accuracy": 0.975,
    "characterErrorRate": 0.0123,
    "samples": 80,
    "step": 6,
    "parityImages": 50,
    "parityEngines": ["Paddle inference"],
}


def test_told_to_stop_while_paddle_traces(
    done: Done, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised in there may never come out: it is raised after it."""
    interrupt, traced = Interrupt(10), []

    def trace(*_: object) -> None:
        interrupt._on_signal(signal.SIGTERM, None)
        traced.append(True)

    monkeypatch.setattr(export_module, "save_network", trace)
    params = build_model(done.recipe).state_dict()
    with pytest.raises(Interrupted):
        export(done.recipe, params, tmp_path, EvalSet(done.recipe, loose(digits)), interrupt)
    assert traced


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_shape", [3, 32]),
        ("image_shape", [3, -32, 64]),
        ("characters", []),
        ("characters", [1, 2]),
        ("max_aspect", "wide"),
        ("max_aspect", 0),
        ("padded", None),
    ],
)
def test_a_card_that_was_changed_is_refused(done: Done, tmp_path: Path, key: str, value: object) -> None:
    card = json.loads((done.folder / "rectrain.json").read_text()) | {key: value}
    (tmp_path / "rectrain.json").write_text(json.dumps(card))
    with pytest.raises(
        DatasetInvalid, match=rf"rectrain\.json can't be read \({key}.*export the model again"
    ):
        load_card(tmp_path)


@pytest.mark.parametrize("name", ["rectrain.json", "inference.pdiparams"])
def test_an_incomplete_folder_is_named(done: Done, tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(done.folder, broken)
    (broken / name).unlink()
    with pytest.raises(InputMissing, match=name.replace(".", r"\.")):
        Predictor(broken)


def test_images_that_cannot_be_read_are_named_and_the_others_read(done: Done, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "a.png").write_bytes(draw("123", random.Random(1)))
    images = [tmp_path / name for name in ("text.png", "a.png", "nowhere.png")]
    first, read, last = Predictor(done.folder).predict(images)
    assert isinstance(read, Prediction)
    assert isinstance(first, Unread)
    assert str(first.problem) == f"{tmp_path}/text.png is no image that can be decoded."
    assert isinstance(last, Unread)
    assert str(last.problem) == f"{tmp_path}/nowhere.png can't be read: No such file or directory."


def test_images_of_different_widths_keep_their_order(done: Done) -> None:
    predictor = Predictor(done.folder)
    rng = np.random.default_rng(3)
    images = [rng.uniform(-1, 1, (3, 32, width)).astype(np.float32) for width in (200, 100, 200, 150)]
    one_by_one = [predictor.read([image])[0] for image in images]
    assert [text for text, _ in predictor.read(images)] == [text for text, _ in one_by_one]


def test_grey_images_and_alpha_are_read(done: Done, tmp_path: Path) -> None:
    colour = cv2.imdecode(np.frombuffer(draw("42", random.Random(2)), np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "alpha.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA))
    images = [tmp_path / "grey.png", tmp_path / "alpha.png"]
    one, two = Predictor(done.folder).predict(images)
    assert isinstance(one, Prediction)
    assert isinstance(two, Prediction)
    assert one.text == two.text


def lines_of_code(card: str, with_word: str) -> str:
    """The lines of the model card that import this."""
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return next(block for block in blocks if with_word in block)


def test_the_code_in_the_model_card_runs(done: Done, tmp_path: Path) -> None:
    """In a folder of its own, with the hashes that stand beside it."""
    folder = tmp_path / "model"
    shutil.copytree(done.folder, folder)
    plan = make_plan(export={"onnx": True})
    write_card(replace(done.exported, folder=folder), plan, done.recipe, METRICS, 300)
    assert sorted(p.name for p in folder.iterdir()) == sorted(done.exported.names)
    sums = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=False)
    assert sums.returncode == 0
    (folder / "image.png").write_bytes(draw("123", random.Random(1)))
    [ours] = Predictor(folder).predict([folder / "image.png"])
    assert isinstance(ours, Prediction)
    card = (folder / "README.md").read_text()
    for python, word in ((sys.executable, "onnxruntime"), (CONSUMER, "paddleocr")):
        said = subprocess.run(
            [python, "-c", lines_of_code(card, word)],
            cwd=folder,
            env={
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
                "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.stdout.splitlines()[-1:] == [ours.text], said.stderr[-2000:]


def test_the_model_card_says_what_it_is(done: Done) -> None:
    plan = make_plan(training={"learningRate": 0.002}, data={"dictionary": "s3://data/digits.txt"})
    card = card_text(done.exported, plan, done.recipe, METRICS, 300)
    for said in (
        "10 characters, and spaces",
        "| digits and numbers | 10, U+0030 to U+0039 |",
        "| data | s3://data/digits, 300 samples |",
        "| dictionary | s3://data/digits.txt |",
        "| learning rate | 0.002 |",
        "| accuracy | 97.50% | Share of images whose whole label is read exactly, ",
        "| characterErrorRate | 1.23% | Characters that are wrong, ",
        "On 80 images that it wasn't trained on",
        f"rectrain {version('rectrain')}",
        "paddlepaddle 3.3.1",
        "unstructured_paddleocr 2.10.0",
        "onnxruntime (50 images, outputs within",
    ):
        assert said in card
    assert "parityImages" not in card
    lowered = card_text(done.exported, plan, replace(done.recipe, rate_factor=0.5), METRICS, 300)
    assert "| learning rate | 0.002, 0.001 at last, since the loss wasn't a number |" in lowered
