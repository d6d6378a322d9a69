"""The parity gate passes a whole export, and names what is wrong with a broken one."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import paddle
import pytest
import yaml

from rectrain_api.errors import ExportMismatch, Interrupted
from rectrain_trainer import export as export_module
from rectrain_trainer import parity
from rectrain_trainer.consumer import VARIABLE, Consumer, width_of
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_model
from rectrain_trainer.parity import (
    ENOUGH,
    LOOKED_THROUGH,
    SAMPLES,
    TOLERANCE,
    Parity,
    Trained,
    check_parity,
    choose,
)
from tests.unit.trainer_learn.exports import Done
from tests.unit.trainer_learn.test_evaluate import Listed


def test_all_engines_read_alike(done: Done) -> None:
    found = done.exported.parity
    assert (found.images, found.with_text) == (50, 50)
    [paddle, onnxruntime, (name, compared)] = found.engines.items()
    assert paddle == ("Paddle inference", 50)
    assert onnxruntime == ("onnxruntime", 50)
    assert name.startswith("PaddleOCR 3.")
    assert compared >= 40, "nearly all images are as narrow as both prepare alike"
    assert found.not_tried == ""
    assert 0 < max(found.differences.values()) < TOLERANCE / 10


def permuted(characters: list[str]) -> list[str]:
    return characters[1:] + characters[:1]


def change_card(folder: Path, **fields: Any) -> None:
    path = folder / "rectrain.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_yml(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "inference.yml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, allow_unicode=True))


def permute_card(folder: Path) -> None:
    change_card(folder, characters=permuted(list("0123456789")))


def permute_yml(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["PostProcess"]["character_dict"] = permuted(content["PostProcess"]["character_dict"])

    change_yml(folder, change)


def raise_card(folder: Path) -> None:
    change_card(folder, image_shape=[3, 48, 64])


def raise_yml(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["PreProcess"]["transform_ops"][2]["RecResizeImg"]["image_shape"][1] = 48

    change_yml(folder, change)


def lose_weights(folder: Path) -> None:
    (folder / "inference.pdiparams").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "inference.pdiparams"
    path.write_bytes(path.read_bytes()[:1000])


def zero_onnx(folder: Path) -> None:
    network = onnx.load(folder / "inference.onnx")
    constants = [node.attribute[0].t for node in network.graph.node if node.op_type == "Constant"]
    largest = max(constants, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes(len(largest.raw_data))
    onnx.save(network, folder / "inference.onnx")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (permute_card, "Paddle inference reads .*outputs differ by up to .*cause: the dictionary"),
        (permute_yml, r"PaddleOCR \(by inference.yml\) reads .*cause: the dictionary"),
        (raise_card, "Paddle inference (fails|reads) .*cause: the image's height, width"),
        (raise_yml, "inference.yml says that images are 3x48x.* height or width in inference.yml"),
        (lose_weights, "Paddle inference can't load .*holds no inference.pdiparams.*cause: weights"),
        (cut_weights, "Paddle inference can't load .*Cannot .* tensor.*cause: weights"),
        (zero_onnx, "onnxruntime reads .*outputs differ by .*cause: weights .*export.onnx: false"),
    ],
)
def test_what_is_wrong_is_named(done: Done, tmp_path: Path, spoil: Any, said: str) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(done.folder, folder)
    spoil(folder)
    with pytest.raises(ExportMismatch, match=said) as refused:
        check_parity(Trained.of(done.model, done.recipe), folder, done.held_out, Interrupt(10))
    assert "The checkpoints are kept: apply the run again" in str(refused.value)
    if spoil not in (raise_yml, lose_weights, cut_weights):
        assert "labels.txt" in str(refused.value), "the image is named"
        assert "training" in str(refused.value)


def test_weights_that_are_not_there(done: Done, tmp_path: Path) -> None:
    """The network was saved with zeros in place of one layer."""
    folder = tmp_path / "spoilt"
    shutil.copytree(done.folder, folder)
    empty = build_model(done.recipe)
    trained = done.model.state_dict()
    empty.set_state_dict(trained | {"head.fc.weight": trained["head.fc.weight"] * 0})
    empty.eval()
    export_module.save_network(empty, done.recipe, folder)
    with pytest.raises(
        ExportMismatch, match=r"Paddle inference reads .*cause: weights that are missing or stale"
    ):
        check_parity(Trained.of(done.model, done.recipe), folder, done.held_out, Interrupt(10))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda texts: Consumer("3.7.0", ["x", *texts[1:]], ""), "PaddleOCR 3.7.0 reads 'x', training '"),
        (
            lambda texts: Consumer("3.7.0", texts[:-1], "no room"),
            "can't read with the exported model: no room",
        ),
    ],
)
def test_what_paddleocr_reads_counts(
    done: Done, monkeypatch: pytest.MonkeyPatch, found: Callable[[list[str]], Consumer], said: str
) -> None:
    trained = Trained.of(done.model, done.recipe)
    texts: dict[bytes, str] = {}
    for seen in parity._batches(trained, done.held_out, range(50)):
        texts |= dict(zip(seen.encoded, seen.texts, strict=True))
    monkeypatch.setenv(VARIABLE, "python")
    monkeypatch.setattr(parity, "read_files", lambda _, images: found([texts[i] for i in images]))
    with pytest.raises(ExportMismatch, match=said):
        check_parity(trained, done.folder, done.held_out, Interrupt(10))


@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("", f"{VARIABLE} names no Python that has it"),
        ("/nowhere/python", "/nowhere/python can't be started (No such file or directory)"),
        ("python3 of no paddleocr", "No module named 'paddleocr'"),
    ],
)
def test_without_paddleocr_it_says_so(
    done: Done, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, python: str, why: str
) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable if " " in python else python)
    with caplog.at_level("INFO"):
        found = check_parity(Trained.of(done.model, done.recipe), done.folder, done.held_out, Interrupt(10))
    assert why in found.not_tried
    assert f"PyPI's paddleocr wasn't tried: {found.not_tried}." in caplog.text
    assert "There were few images to compare." in caplog.text


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        pytest.param(["", "a", "b", "c", ""], [0, 1, 2, 3], id="the-first"),
        pytest.param(["", "", "", "", "a", "b", "c"], [0, 1, 4, 5], id="half-of-them-with-text"),
        pytest.param(["", "", "", "", "a"], [0, 1, 2, 4], id="as-many-as-there-are"),
    ],
)
def test_at_least_half_of_the_images_have_text(texts: list[str], chosen: list[int]) -> None:
    assert choose(texts, 4) == chosen


def test_of_a_large_set_no_more_is_read_than_must_be() -> None:
    read = iter(["a"] * 9)
    assert choose(read, 4) == [0, 1, 2, 3]
    assert len(list(read)) == 5


class Blank:
    """A model that reads nothing in any image, and counts them."""

    def __init__(self, done: Done) -> None:
        self.images, self._classes = 0, done.recipe.classes

    def __call__(self, images: Any) -> Any:
        self.images += len(images)
        return paddle.zeros([len(images), 4, self._classes])


@pytest.mark.parametrize("done", ["svtr_nano"], indirect=True)
def test_of_a_model_that_reads_nothing_a_part_of_a_large_set_is_looked_through(done: Done) -> None:
    assert SAMPLES >= ENOUGH == 64
    many = EvalSet(
        done.recipe, Listed([("1", done.held_out.samples.image_bytes(0))] * (LOOKED_THROUGH + 999))
    )
    model, interrupt = Blank(done), Interrupt(10)
    chosen = parity._choose(Trained.of(model, done.recipe), many, interrupt)
    assert (len(chosen), model.images) == (SAMPLES, LOOKED_THROUGH)
    interrupt._since = 0.0  # told to stop, and what that raised got lost
    with pytest.raises(Interrupted):
        parity._choose(Trained.of(model, done.recipe), many, interrupt)
    with pytest.raises(Interrupted):
        check_parity(Trained.of(done.model, done.recipe), done.folder, done.held_out, interrupt)


@pytest.mark.parametrize(
    ("columns", "rows", "width"), [(10, 10, 64), (128, 32, 128), (100, 30, 106), (9999, 1, 3200)]
)
def test_how_wide_paddleocr_makes_an_image(columns: int, rows: int, width: int) -> None:
    assert width_of(columns, rows, [3, 32, 64]) == width


def test_what_was_not_compared_is_said() -> None:
    few = Parity(
        80, 39, {"onnxruntime": 80}, {"onnxruntime": 2e-5}, "it prepares none of the images"
    ).sentence()
    assert few == (
        "Of 80 held-out images (39 with text), read alike as in training by onnxruntime (80 images, "
        "outputs within 2e-05). Fewer than half hold text that it reads: that outputs are equal says more "
        "than that texts are. PyPI's paddleocr wasn't tried: it prepares none of the images."
    )
    assert Parity(80, 40, {"PaddleOCR 3.7.0": 80}).sentence() == (
        "Of 80 held-out images (40 with text), read alike as in training by PaddleOCR 3.7.0 (80 images)."
    )
