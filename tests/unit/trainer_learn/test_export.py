"""Export and predict: the exported folder alone reads what the trained model reads."""

import json
import random
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
import yaml

from rectrain_api.errors import DatasetInvalid, ExportMismatch, InputMissing, Interrupted
from rectrain_trainer import export as export_module
from rectrain_trainer.config import Recipe
from rectrain_trainer.evaluate import EvalSet, Preparation
from rectrain_trainer.export import FILES, _squeeze, check_parity, export
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_model
from rectrain_trainer.predict import Predictor, load_card, predict
from tests.unit.trainer_learn.digits import draw
from tests.unit.trainer_learn.recipes import loose, make_recipe


@dataclass(frozen=True)
class Done:
    recipe: Recipe
    folder: Path
    model: Any


def wordy(recipe: Recipe) -> dict[str, Any]:
    """Weights that make an untrained model read something: a loud head, without a preference for blank."""
    rng = np.random.default_rng(1)
    params = {name: tensor.numpy() for name, tensor in build_model(recipe).state_dict().items()}
    params["head.fc.weight"] = rng.normal(0, 3, params["head.fc.weight"].shape).astype(np.float32)
    params["head.fc.bias"] = np.zeros_like(params["head.fc.bias"])
    return params


@pytest.fixture(scope="session", params=["svtr_nano", "crnn_mv3"])
def done(request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    recipe = make_recipe(request.param, use_space_char=True)
    folder = tmp_path_factory.mktemp(request.param) / "export"
    params = wordy(recipe)
    exported = export(recipe, params, folder, EvalSet(recipe, loose(digits)), Interrupt(10))
    assert exported.compared == 50
    model = build_model(recipe)
    model.set_state_dict(params)
    model.eval()
    return Done(recipe, folder, model)


def test_it_holds_what_paddleocr_reads(done: Done) -> None:
    assert {path.name for path in done.folder.iterdir()} == set(FILES)
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
    [prediction] = predict(moved, [image])
    assert prediction.path == image
    assert prediction.text
    assert 0 < prediction.confidence <= 1


def test_any_width_and_batch_is_taken(done: Done) -> None:
    """PaddleOCR widens its input to the image's ratio; a fixed width must not end in a broadcast error."""
    predictor = Predictor(done.folder)
    for width in (done.recipe.image_shape[2], 333, 640):
        assert len(predictor.read([np.zeros((3, 3, 32, width), np.float32)])) == 3


def test_a_wide_image_is_squeezed_as_training_squeezes_it() -> None:
    encoded = draw("12345678", random.Random(4))
    row = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert row.shape[1] > 64
    trained_on = Preparation([3, 32, 64], padded=True)(encoded)
    as_it_is = (row.transpose(2, 0, 1)[None].astype(np.float32) / 255 - 0.5) / 0.5
    squeezed = _squeeze(paddle.to_tensor(as_it_is), 64).numpy()[0]
    assert np.abs(squeezed - trained_on).max() < 2.1 / 255  # OpenCV rounds to whole grey levels
    assert np.array_equal(_squeeze(paddle.to_tensor(as_it_is), row.shape[1]).numpy(), as_it_is)


def test_a_model_that_reads_differently_is_not_published(done: Done, digits: Path) -> None:
    other = build_model(done.recipe)
    other.eval()
    with pytest.raises(ExportMismatch, match=r"differently, first .*labels"):
        check_parity(other, done.recipe, done.folder, EvalSet(done.recipe, loose(digits)))


def test_the_card_says_how_wide_it_reads(done: Done) -> None:
    card = json.loads((done.folder / "rectrain.json").read_text())
    _, height, width = done.recipe.image_shape
    assert card["max_aspect"] == (width if done.recipe.fixed_width else 3200) / height
    assert card["characters"] == list("0123456789")
    assert card["use_space_char"] is True


def test_told_to_stop_while_paddle_traces(
    done: Done, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised in there may never come out: it is raised after it."""
    interrupt, traced = Interrupt(10), []

    def trace(*_: object) -> None:
        interrupt._on_signal(signal.SIGTERM, None)
        traced.append(True)

    monkeypatch.setattr(export_module, "_save_network", trace)
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
        predict(broken, [])


def test_images_that_cannot_be_read_are_named(done: Done, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"nowhere\.png can't be read"):
        predict(done.folder, [tmp_path / "nowhere.png"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DatasetInvalid, match=r"text\.png is no image"):
        predict(done.folder, [tmp_path / "text.png"])


def test_grey_images_and_alpha_are_read(done: Done, tmp_path: Path) -> None:
    colour = cv2.imdecode(np.frombuffer(draw("42", random.Random(2)), np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "alpha.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA))
    one, two = predict(done.folder, [tmp_path / "grey.png", tmp_path / "alpha.png"])
    assert one.text == two.text
