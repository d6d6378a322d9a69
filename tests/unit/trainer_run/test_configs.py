"""`rectrain-trainer config`: models looked at before anything is trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from rectrain_api.errors import InputMissing, InvalidSpec, UsageError
from rectrain_trainer.configs import named, tables
from rectrain_trainer.configs.sheet import MARGIN, Block, Picture, draw, face_for
from tests.support.plans import make_manifest
from tests.unit.trainer_run.test_cli import command, refused

CONFIGS = Path(__file__).parents[2] / "data" / "configs"


def test_every_way_to_name_a_model_gives_the_same_one(tmp_path: Path) -> None:
    preset = named.find("svtr_nano")
    config = named.find(str(CONFIGS / "svtr_nano.yml"))
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(make_manifest()))
    manifest = named.find(str(job))
    assert preset.model.config == config.model.config == manifest.model.config
    assert (manifest.epochs, manifest.batch_size) == (2, 16)
    alias = named.find("th_PP-OCRv5_mobile_rec.yaml")
    assert alias.dictionary == "ppocrv5_th_dict"


def test_what_differs_between_two_models() -> None:
    rows = tables.differences(
        named.find("th_PP-OCRv5_mobile_rec").to_dict(),
        named.find(str(CONFIGS / "ppocrv5_th.yaml"), {"Architecture.Backbone.scale": "0.5"}).to_dict(),
    )
    assert rows == [
        ("name", "pp_ocrv5_mobile", "th_PP-OCRv5_mobile_rec"),
        ("config.Architecture.Backbone.scale", 0.95, 0.5),
    ]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("svtr_nanno", InvalidSpec, "svtr_nanno"),
        ("./missing.yml", InputMissing, "There is no file"),
        ("missing.yml", InputMissing, "There is no file"),
    ],
)
def test_names_that_are_nothing(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        named.find(name)


def test_an_override_is_a_key_and_a_value() -> None:
    assert named.parse_overrides(["a.b=c=d", "e="]) == {"a.b": "c=d", "e": ""}
    with pytest.raises(UsageError, match="must be KEY=VALUE"):
        named.parse_overrides(["Global.epoch_num"])


def test_the_commands_print_what_they_found() -> None:
    code, said = command("config", "list", "--json")
    assert code == 0
    presets = {row["name"]: row for row in json.loads(said)}
    assert {"svtr_nano", "crnn_mv3", "pp_ocrv5_mobile"} <= presets.keys()
    assert {"name": "th_PP-OCRv5_mobile_rec", "dictionary": "ppocrv5_th_dict"} in presets["pp_ocrv5_mobile"][
        "aliases"
    ]
    code, said = command("config", "show", str(CONFIGS / "crnn.yml"), "-o", "Global.epoch_num=3")
    assert code == 0
    assert yaml.safe_load(said)["epochs"] == 3
    code, said = command("config", "diff", "crnn_mv3", str(CONFIGS / "crnn.yml"))
    assert code == 0
    assert [line.split() for line in said.splitlines()[1:]] == [["name", "crnn_mv3", "CRNN"]]


def test_a_config_is_validated_with_paddleocrs_own_code(tmp_path: Path) -> None:
    code, said = command("config", "validate", str(CONFIGS / "svtr_nano.yml"), "--json")
    assert code == 0
    assert json.loads(said)["used"]["parameters"] > 100_000
    misspelt = tmp_path / "th.yml"
    misspelt.write_text((CONFIGS / "ppocrv5_th.yaml").read_text().replace("_th_dict", "_thai_dict"))
    code, said = command("config", "validate", str(misspelt))
    assert code == 0
    assert "There is no dictionary 'ppocrv5_thai_dict' here" in said
    of = command("config", "validate", str(CONFIGS / "ppocrv6_medium.yml"))
    refused(78, "Backbone PPLCNetV4 isn't in the PaddleOCR", of=of)


def test_a_sheet_shows_every_image_and_its_label() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 320, 3), dtype=np.uint8) for _ in range(5)]
    block = Block("first", [Picture(image, f"text {i}") for i, image in enumerate(images)])
    face = face_for(["text 0"])
    assert face.problems == []
    sheet = np.asarray(draw([block, block], face))
    found = [
        (y, x)
        for image in images
        for y, x in np.argwhere(sheet[: -image.shape[0], : -image.shape[1], 0] == image[0, 0, 0])
        if np.array_equal(sheet[y : y + 32, x : x + 320], image)
    ]
    assert len(found) == 10, "each of five images, in both blocks"
    assert {x for _, x in found} == {MARGIN + i * 330 for i in range(4)}, "four in a row, the fifth below"
    below = [sheet[y + 33 : y + 33 + face.line_height - 4, x : x + 60] for y, x in found]
    assert all((label.min() < 100) for label in below), "ink under each"


def test_what_a_font_lacks_is_said() -> None:
    assert face_for(["abc Ω я"]).problems == []
    [problem] = face_for(["a\ue000"]).problems
    assert "U+E000" in problem
    assert "--font" in problem
