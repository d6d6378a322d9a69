from typing import Any

import pytest

from rectrain_api import presets
from rectrain_api.errors import InvalidSpec
from rectrain_api.overrides import apply_overrides

CONFIG: dict[str, Any] = {
    "Architecture": {
        "algorithm": "SVTR",
        "Backbone": {"embed_dim": [32, 48, 64], "mixer": ["Local", "Global"], "drop_path_rate": 0.1},
    },
    "Optimizer": {"name": "AdamW", "clip_norm": None, "lr": {"warmup_epoch": 2}},
    "augment": [{"RecAug": {"tia_prob": 0.0}}],
    "padded": True,
    "local_mixer": [[7, 11], [7, 11]],
}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        pytest.param("Architecture.Backbone.drop_path_rate", "0", 0.0, id="float"),
        pytest.param("Optimizer.lr.warmup_epoch", "5", 5, id="int"),
        pytest.param("Optimizer.name", "Adam", "Adam", id="word"),
        pytest.param("padded", "False", False, id="bool"),
        pytest.param("Architecture.Backbone.embed_dim", "[16, 16, 32]", [16, 16, 32], id="list"),
        pytest.param("Architecture.Backbone.mixer", '["Global"]', ["Global"], id="list-of-words"),
        pytest.param("local_mixer", "[[5, 7]]", [[5, 7]], id="nested-list"),
        pytest.param("augment.0.RecAug.tia_prob", "0.4", 0.4, id="inside-a-list"),
        pytest.param("Optimizer.clip_norm", "10", 10, id="null-takes-a-scalar"),
        pytest.param("augment", "SVTRRecAug", [{"SVTRRecAug": {}}], id="augmentation"),
        pytest.param("augment", "RecAug, ABINetRecAug", [{"RecAug": {}}, {"ABINetRecAug": {}}], id="two"),
        pytest.param("augment", "", [], id="no-augmentation"),
    ],
)
def test_parsed_against_the_type_that_stands_there(key: str, text: str, expected: object) -> None:
    changed = apply_overrides(CONFIG, {key: text})
    node: Any = changed
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert node == expected
    assert type(node) is type(expected)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        pytest.param("Optimiser.name", "Adam", "did you mean 'Optimizer'?", id="misspelt-section"),
        pytest.param("Optimizer.lr.warmup_epochs", "1", "did you mean 'warmup_epoch'?", id="misspelt-key"),
        pytest.param(
            "warmup_epoch", "9", "did you mean 'Optimizer.lr.warmup_epoch'?", id="without-its-section"
        ),
        pytest.param("Optimizer.zzz", "1", "it has clip_norm, lr, name", id="nothing-near"),
        pytest.param("Optimizer.lr", "1", "name a key inside it (warmup_epoch)", id="section"),
        pytest.param("Optimizer.name.x", "1", "single value", id="below-a-value"),
        pytest.param("augment.1.RecAug", "1", "position from 0", id="outside-a-list"),
        pytest.param("Optimizer.lr.warmup_epoch", "two", "a whole number", id="not-an-int"),
        pytest.param("Architecture.Backbone.drop_path_rate", "nan", "a finite number", id="nan"),
        pytest.param("padded", "maybe", "true or false", id="not-a-bool"),
        pytest.param("Optimizer.name", "__import__('os')", "a plain word", id="nothing-callable"),
        pytest.param("Architecture.Backbone.mixer", '["print(1)"]', "JSON list", id="call-in-a-list"),
        pytest.param("Architecture.Backbone.embed_dim", '["a"]', "JSON list", id="list-of-another-type"),
        pytest.param("Optimizer.clip_norm", '{"a": 1}', "a number, true", id="null-takes-no-section"),
        pytest.param("augment", "CopyPaste", "name some of ABINetRecAug, ", id="unknown-augmentation"),
        pytest.param("augment", '[{"RecAug": {}}]', "name some of", id="augmentation-as-json"),
    ],
)
def test_refused_with_a_way_out(key: str, text: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        apply_overrides(CONFIG, {key: text})
    assert said in str(caught.value)
    assert key in str(caught.value)


def test_the_preset_itself_is_left_alone() -> None:
    apply_overrides(CONFIG, {"Architecture.Backbone.embed_dim": "[1]"})
    assert CONFIG["Architecture"]["Backbone"]["embed_dim"] == [32, 48, 64]


def test_a_section_that_is_off_is_left_out_until_it_is_named() -> None:
    preset = presets.load("svtr_nano")
    assert preset.config.dump() == preset.configured({})
    assert not {"sampler", "ema"} & preset.configured({}).keys()
    averaged = preset.configured({"ema.decay": "0.9"})
    assert averaged["ema"] == {"decay": 0.9, "gamma": 2000, "decay_type": "threshold"}
    assert "sampler" not in averaged
    assert preset.configured({"sampler.fix_bs": "true"})["sampler"] == {"scales": [[64, 32]], "fix_bs": True}


def test_a_section_that_a_preset_has_is_changed() -> None:
    sampler = presets.load("crnn_mv3").configured({"sampler.scales": "[[64,32], [160,32]]"})["sampler"]
    assert sampler == {"scales": [[64, 32], [160, 32]], "fix_bs": False}


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        pytest.param("emma.decay", "0.9", "did you mean 'ema'?", id="misspelt-section"),
        pytest.param("ema", "true", "name a key inside it (decay, decay_type, gamma)", id="section"),
        pytest.param("ema.decay", "1", "ema.decay: Input should be less than 1", id="range"),
        pytest.param("ema.decay_type", "linear", "ema.decay_type: Input should be 'threshold'", id="choice"),
        pytest.param("sampler.zzz", "8", "it has fix_bs, scales", id="unknown-key"),
        pytest.param("sampler.scales", "[]", "sampler.scales: List should have at least 1 item", id="none"),
        pytest.param("sampler.scales", "[[64]]", "sampler.scales.0.1: Field required", id="one-side"),
        pytest.param("sampler.scales", "[[64, 0]]", "greater than or equal to 8", id="no-pixels"),
        pytest.param("sampler.scales", "[64, 32]", "must be a JSON list like", id="flat"),
    ],
)
def test_a_section_is_checked_as_a_whole(key: str, text: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        presets.load("svtr_nano").configured({key: text})
    assert said in str(caught.value)
