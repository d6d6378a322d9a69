"""Configs of PaddleOCR become presets; what can't be trained is refused in one sentence."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rectrain_api import upstream_config
from rectrain_api.errors import InvalidSpec
from rectrain_api.presets import load
from rectrain_api.upstream_config import UpstreamConfig, read_config

CONFIGS = Path(__file__).parents[2] / "data" / "configs"


def read(name: str, **overrides: str) -> UpstreamConfig:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return read_config((CONFIGS / name).read_bytes(), name, dotted)


def changed(name: str, **keys: Any) -> str:
    """A config's text with dotted keys set; None removes one."""
    content = yaml.safe_load((CONFIGS / name).read_text("utf-8"))
    for dotted, value in keys.items():
        *above, last = dotted.split("__")
        node = content
        for part in above:
            node = node[part]
        node[last] = value
        if value is None:
            del node[last]
    return yaml.safe_dump(content, sort_keys=False)


def test_each_familys_facts_arrive() -> None:
    # name, dictionary, shape, epochs, batch, rate, guide, scales, mixed precision
    facts = {
        "crnn.yml": ("CRNN", None, [3, 32, 100], 72, 256, 5e-4, "", 1, None),
        "svtr_nano.yml": ("SVTR", "en_dict", [3, 32, 64], 6, 32, 3e-3, "", 0, None),
        "svtr_lmdb.yml": ("SVTR", None, [3, 64, 256], 20, 512, 5e-4, "", 0, None),
        "ppocrv3.yml": ("SVTR_LCNet", "ppocr_keys_v1", [3, 48, 320], 500, 128, 5e-4, "label_sar", 0, None),
        "ppocrv4_mobile.yml": (
            "en_PP-OCRv4_mobile_rec", "en_dict", [3, 48, 320], 50, 96, 5e-4, "label_gtc", 3, None,
        ),
        "ppocrv4_server.yml": (
            "SVTR_HGNet", "ppocr_keys_v1", [3, 48, 320], 200, 256, 5e-4, "label_gtc", 3, "O2",
        ),
        "ppocrv5_th.yaml": (
            "th_PP-OCRv5_mobile_rec", "ppocrv5_th_dict", [3, 48, 320], 75, 128, 5e-4, "label_gtc", 3, None,
        ),
        "ppocrv6_medium.yml": (
            "PP-OCRv6_medium_rec", "ppocrv6_dict", [3, 48, 320], 100, 64, 5e-4, "label_gtc", 3, None,
        ),
    }  # fmt: skip
    assert sorted(facts) == sorted(file.name for file in CONFIGS.iterdir())
    for name, expected in facts.items():
        preset = read(name).preset
        config = preset.config
        assert (
            preset.name,
            preset.dictionary,
            preset.image_shape,
            preset.epochs,
            preset.batch_size,
            preset.learning_rate,
            "".join({"label_sar", "label_gtc"} & set(config.keep_keys)),
            len(config.sampler.scales) if config.sampler else 0,
            config.amp.level if config.amp else None,
        ) == expected, name


@pytest.mark.parametrize(
    ("preset", "file"),
    [
        ("svtr_nano", "svtr_nano.yml"),
        ("crnn_mv3", "crnn.yml"),
        ("svtr_tiny", "svtr_lmdb.yml"),
        ("th_PP-OCRv5_mobile_rec", "ppocrv5_th.yaml"),
    ],
)
def test_a_presets_model_written_as_a_config_is_the_same_model(preset: str, file: str) -> None:
    ours, theirs = load(preset), read(file).preset
    assert theirs.configured({}) == ours.configured({})
    for same in ("image_shape", "padded", "max_text_length", "epochs", "batch_size", "learning_rate"):
        assert getattr(theirs, same) == getattr(ours, same)


def test_what_is_squeezed_rectified_and_kept_in_lmdb_is_told() -> None:
    config = read("svtr_lmdb.yml")
    assert not config.preset.padded
    assert config.preset.config.resize == "SVTRRecResizeImg"
    assert config.data.train is not None
    assert (config.data.train.kind, config.data.train.data_dir) == (
        "LMDBDataSet",
        "./train_data/data_lmdb_release/training",
    )
    assert config.preset.config.optimizer["epsilon"] == 8e-8
    assert config.data.eval_every_steps == 2000


def test_notes_name_every_key_that_decides_nothing_and_only_those() -> None:
    told = {note.key: note.what for note in read("ppocrv6_medium.yml").notes}
    assert told == {
        "Global.eval_batch_step": "Replaced",
        "Global.use_space_char": "Replaced",
        "Global.distributed": "Replaced",
        "Train.dataset": "Replaced",
        "Train.dataset.ratio_list": "Unused",
        "Train.loader": "Replaced",
        "Metric": "Replaced",
        "Eval": "Replaced",
    }
    text = changed("crnn.yml", Global__epoch_nums=9) + "Global2: {}\n"
    said = [str(note) for note in read_config(text, "c").notes]
    assert "Global.epoch_nums isn't used: RecTrain doesn't know it (did you mean epoch_num?)" in said
    assert "Global2 isn't used: PaddleOCR has no such section (did you mean Global?)" in said


def test_overrides_are_in_the_configs_own_keys() -> None:
    preset = read(
        "ppocrv5_th.yaml",
        Global__epoch_num="10",
        Optimizer__lr__learning_rate="1e-4",
        Train__loader__batch_size_per_card="16",
        Global__use_amp="true",
        Global__amp_level="O1",
        Global__use_ema="yes",
    ).preset
    assert (preset.epochs, preset.learning_rate, preset.batch_size) == (10, 1e-4, 16)
    assert preset.config.amp is not None
    assert preset.config.amp.level == "O1"
    assert preset.config.ema is not None
    assert preset.config.ema.decay == 0.9998
    moved = read(
        "ppocrv5_th.yaml",
        Global__pretrained_model="./weights/best accuracy",
        Train__dataset__label_file_list='["a b.txt", "c.txt"]',
        Global__character_dict_path="/home/me/chars.txt",
    )
    assert moved.data.pretrained_model == "./weights/best accuracy"
    assert moved.data.train is not None
    assert moved.data.train.label_files == ("a b.txt", "c.txt")
    assert moved.preset.dictionary is None
    assert any(note.key == "Global.character_dict_path" for note in moved.notes)
    # A factor of 0 is a fraction, though YAML reads a whole number.
    factor = read("crnn.yml", Optimizer__regularizer__factor="3e-5").preset.config.optimizer
    assert factor["regularizer"]["factor"] == 3e-5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("Global.epoch_nun", "10", r"c.yml: overrides: 'Global.epoch_nun': Global has no key .* 'epoch_num'"),
        ("Global.epoch_num", "ten", r"'Global.epoch_num' must be a whole number \(it is 72\), not 'ten'"),
        ("Optimiser.lr.learning_rate", "1", r"has no key 'Optimiser' \(did you mean 'Optimizer'\?\)"),
        ("Architecture.Head.name", "__import__('os')", "must be a plain word"),
        ("Train.dataset.label_file_list", '["a", 3]', "isn't a list of places"),
    ],
)
def test_an_override_that_fits_no_key_is_refused(key: str, value: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_config((CONFIGS / "crnn.yml").read_text("utf-8"), "c.yml", {key: value})


HEADS = {
    "SARHead": "doesn't read by CTC",
    "Transformer": "doesn't read by CTC",
    "ABINetHead": "doesn't read by CTC",
    "CANHead": "writes formulas",
    "UniMERNetHead": "writes formulas",
}


@pytest.mark.parametrize("head", HEADS)
def test_other_heads_are_refused_by_their_name(head: str) -> None:
    with pytest.raises(
        InvalidSpec, match=f"^c.yml: Architecture.Head.name: {head} {HEADS[head]}.*CTCHead.*MultiHead"
    ):
        read_config(changed("crnn.yml", Architecture__Head={"name": head}), "c.yml")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "distilled": (
        {
            "Architecture__Models": {
                "Student": {"Backbone": {"name": "PPLCNetV3"}, "Head": {"name": "MultiHead"}},
                "Teacher": {},
            }
        },
        r"distillation trains Student and Teacher at once.*use PP-OCRv4_mobile_rec.yml",
    ),
    "1.x": ({"Architecture": {"function": "a.b,C"}}, "PaddleOCR 1.x"),
    "detection": ({"Architecture__model_type": "det"}, "text recognition"),
    "no optimizer": ({"Optimizer": None}, "has no section Optimizer"),
    "schedule": ({"Optimizer__lr__name": "Cosin"}, r"'Cosin' isn't one .*\(did you mean Cosine\?\)"),
    "data set": ({"Train__dataset__name": "PGDataSet"}, "Train.dataset.name: 'PGDataSet' isn't one"),
    "sampler": ({"Train__sampler__name": "RatioSampler"}, "Train.sampler.name: 'RatioSampler' isn't one"),
    "operator": (
        {"Train__dataset__transforms": [{"SSLRotateResize": None}]},
        "SSLRotateResize isn't an operator that RecTrain runs",
    ),
    "labels": (
        {"Train__dataset__transforms": [{"MultiLabelEncode": None}]},
        "labels must be encoded by CTCLabelEncode",
    ),
    "TPS": ({"Architecture__Transform": {"name": "TPS"}}, "Transform.name: TPS can't be used .* null"),
    "endless rate": (
        {"Optimizer__lr__learning_rate": float("inf")},
        "learning_rate must be above 0 and finite",
    ),
    "no size": (
        {
            "Train__dataset__transforms": [
                {"CTCLabelEncode": None},
                {"RecResizeImg": {"image_shape": [3, 4, 100]}},
            ]
        },
        "greater than or equal to 8",
    ),
    "center loss": ({"Loss": {"name": "CombinedLoss"}}, "Loss.name: CombinedLoss can't be trained here"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_with_the_reason(case: str) -> None:
    keys, message = REFUSED[case]
    with pytest.raises(InvalidSpec, match=message) as refused:
        read_config(changed("crnn.yml", **keys), "c.yml")
    assert str(refused.value).startswith("c.yml")
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Global: !!python/object/apply:os.system [ls]", "the tag tag:yaml.org,2002:python/object"),
        ("Global: !!set {a}", "the tag"),
        ("a: &a [1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" + "".join(
            f"{chr(99 + i)}: &{chr(99 + i)} [{','.join([f'*{chr(98 + i)}'] * 10)}]\n" for i in range(8)
        ), "more than 20000 values"),
        ("a: &a {k: 1}\nb: &b {<<: [*a,*a,*a,*a,*a,*a,*a,*a]}\n" + "".join(
            f"{chr(99 + i)}: &{chr(99 + i)} {{<<: [{','.join([f'*{chr(98 + i)}'] * 8)}]}}\n" for i in range(9)
        ), "more than 20000 values"),
        ("a: &a [*a]", "holds itself"),
        ("[" * 500 + "]" * 500, "no sections|nested"),
        ("a: b: c", "line 1 column 5 isn't YAML"),
        ("a: !!bool maybe", "isn't what its tag says"),
        ("a: !!float ''", "isn't what its tag says"),
        ('a: "\\ud800"', "line 1: .* no text may have"),
        ('a: "\\0"', "line 1: .* no text may have"),
        ("just words", "has no sections"),
        ("", "has no sections"),
        ("a: " + "x" * (256 << 10), "has 262147 bytes"),
        ("Global: {epoch_num: 1}", "has no section Optimizer"),
    ],
)  # fmt: skip
def test_text_that_is_no_config_is_refused_before_it_can_do_harm(text: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=f"^c.yml.*({message})"):
        read_config(text, "c.yml")


def test_a_key_that_stands_twice_is_told() -> None:
    text = (CONFIGS / "crnn.yml").read_text("utf-8").replace("epoch_num: 72", "epoch_num: 72\n  epoch_num: 3")
    config = read_config(text, "c.yml")
    assert config.preset.epochs == 3
    assert str(config.notes[0]) == "Global.epoch_num isn't used: it stands twice: the last one holds"


def test_a_number_of_time_steps_of_its_own_is_kept() -> None:
    text = (CONFIGS / "svtr_nano.yml").read_text("utf-8").replace("out_char_num: 16", "out_char_num: 8")
    assert read_config(text, "c").preset.config.architecture["Backbone"]["out_char_num"] == 8


OTHER_KINDS: list[Any] = [
    None, 5, -1, 1.5, float("inf"), 10**30, True, "x", [], {}, [1, 2], [[1]], [None], [{}], {"name": []},
    {1: 2},
]  # fmt: skip


@pytest.mark.parametrize("name", ["svtr_lmdb.yml", "ppocrv3.yml", "ppocrv4_mobile.yml"])
def test_a_value_of_another_kind_is_read_or_refused_in_a_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anywhere in a config: nothing but InvalidSpec comes of it."""
    whole = yaml.safe_load((CONFIGS / name).read_text("utf-8"))
    for place in _places(whole):
        for other in OTHER_KINDS:
            content = copy.deepcopy(whole)
            _put(content, place, copy.deepcopy(other))
            monkeypatch.setattr(upstream_config, "parse", lambda *_, content=content: (content, []))
            with contextlib.suppress(InvalidSpec):
                read_config("", name)


def _places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*above, key)
        yield from _places(value, (*above, key))


def _put(content: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value
