"""Every preset beside the small two is evaluated, exported and read by other engines as it was trained.

That they train as upstream does is in `test_golden`. The weights are none that were learnt, but read
something. The server's models, and every dictionary, are in `tests/chaos/test_presets.py`.
"""

from pathlib import Path

import pytest
import yaml

from rectrain_api import presets
from rectrain_trainer import preset_sizes
from rectrain_trainer.consumer import VARIABLE
from rectrain_trainer.evaluate import EvalSet, evaluate
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.model import build_decoder
from rectrain_trainer.predict import Predictor
from rectrain_trainer.snapshot import capture, restore
from tests.unit.trainer_learn.digits import make_digits
from tests.unit.trainer_learn.exports import CONSUMER, exported
from tests.unit.trainer_learn.recipes import loose, make_recipe


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    make_digits(folder, 6, seed=3, longest=4)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "svtr_tiny",
        "svtr_base",
        "en_PP-OCRv3_mobile_rec",
        "en_PP-OCRv4_mobile_rec",
        "th_PP-OCRv5_mobile_rec",
    ],
)
def test_a_preset_is_evaluated_exported_and_read_alike(
    name: str, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("th"):  # the others' way is the same
        monkeypatch.setenv(VARIABLE, str(CONSUMER))
    done = exported(name, few, tmp_path / "export")
    recipe, parity = done.recipe, done.exported.parity
    assert len(recipe.characters) == len(dict.fromkeys(recipe.characters))
    assert parity.images == parity.with_text == 6
    assert {"Paddle inference", "onnxruntime"} <= parity.engines.keys()
    assert any("PaddleOCR" in engine for engine in parity.engines) == name.startswith("th")

    decoder = build_decoder(recipe.characters, use_space_char=True)
    found = evaluate(done.model, decoder, EvalSet(recipe, loose(few)))
    assert found.accuracy == 0  # what it reads are no labels
    predictor = Predictor(done.folder)
    texts = [text for text, _ in predictor.decode(predictor.forward(predictor.prepare(few_image(few))[None]))]
    assert texts[0]
    assert set(texts[0]) <= {*recipe.characters, " "}


def few_image(folder: Path) -> bytes:
    return (folder / "images/00000.png").read_bytes()


def test_a_guided_model_goes_on_as_if_it_hadnt_stopped(few: Path) -> None:
    """With joined and augmented samples, several sizes, and dropout in its guide."""
    scales = {"sampler.scales": "[[160,48],[80,48]]"}
    recipe = make_recipe("pp_ocrv3_mobile", batch_size=2, epochs=2, overrides=scales)
    assert [*recipe.augment[0]] == ["RecConAug"]
    with Loader(recipe, loose(few)) as loader:
        whole = TrainState.new(recipe, len(loader))
        losses = [row.loss for step in train(whole, loader, fetch_every=1) for row in step.losses]
        first = TrainState.new(recipe, len(loader))
        for step in train(first, loader, fetch_every=1):
            if step.step == 2:
                break
        second = TrainState.new(recipe, len(loader))
        restore(second, capture(first))
        rest = [row.loss for step in train(second, loader, fetch_every=1) for row in step.losses]
    assert len(losses) == 4
    assert rest == losses[2:]


@pytest.mark.parametrize("name", sorted(presets.all_presets()))
def test_the_page_tells_how_many_parameters_there_are(name: str) -> None:
    """Otherwise: python -m rectrain_trainer.preset_sizes, then make crds."""
    sizes = yaml.safe_load(preset_sizes.FILE.read_text())["presets"]
    assert sizes[name]["parameters"] == preset_sizes.count(name)


def test_a_model_for_lines_has_all_of_upstreams_names() -> None:
    """Each name leads to one preset, with and without the ending of its config's file."""
    names = [alias.name for preset in presets.all_presets().values() for alias in preset.aliases]
    assert len(names) == len(set(names))
    for name in names:
        assert presets.load(name) == presets.load(f"{name}.yml") == presets.load(f"{name}.yaml")
    thai = presets.load("th_PP-OCRv5_mobile_rec.yaml")
    assert (thai.name, thai.dictionary, thai.batch_size) == ("pp_ocrv5_mobile", "ppocrv5_th_dict", 128)
    english = presets.load("en_PP-OCRv4_rec")
    assert (english.name, english.dictionary, english.epochs) == ("pp_ocrv4_mobile", "en_dict", 50)
