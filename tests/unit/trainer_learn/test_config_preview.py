"""The preview shows the loader's own batches, of every size, with the labels that are trained on."""

from pathlib import Path

import pytest
from PIL import Image

from rectrain_api.errors import InputMissing
from rectrain_data import demo
from rectrain_trainer.config import resolve
from rectrain_trainer.configs import named
from rectrain_trainer.configs.preview import _blocks, _dictionary, _source, preview

SIZES = {"sampler.scales": "[[100,32],[64,32]]", "augment": "RecAug"}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.make(tmp_path_factory.mktemp("digits") / "set", count=24, seed=3)


def test_every_size_is_drawn_with_its_labels(labels: Path, tmp_path: Path) -> None:
    found = named.find("crnn_mv3", SIZES)
    said = preview(found, labels, tmp_path / "sheet.png", dictionary=None, images=5, epoch=2, font=None)
    assert said == [f"{tmp_path / 'sheet.png'} shows 2 size(s), epoch 2; augmentation: RecAug."]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1400
    source = _source(labels)
    recipe = resolve(found.model, found.training(), _dictionary(None, source).characters)
    blocks = list(_blocks(recipe, source, 5, 2))
    assert {block.pictures[0].pixels.shape for block in blocks} == {(32, 100, 3), (32, 64, 3)}
    texts = {line.split("\t")[1] for line in labels.read_text().splitlines()}
    assert all(picture.text in texts for block in blocks for picture in block.pictures)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="neither a label file nor a packed set"):
        preview(
            named.find("svtr_nano"),
            tmp_path / "x",
            tmp_path / "y",
            dictionary=None,
            images=1,
            epoch=1,
            font=None,
        )
