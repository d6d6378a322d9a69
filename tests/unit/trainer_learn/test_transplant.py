"""Heads of upstream's own code, in the order of its own label encoders: what is carried over is the same
character's.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectrain_api.errors import InvalidSpec
from rectrain_data.dictionary import builtin_names
from rectrain_trainer import upstream
from rectrain_trainer.model import build_model
from rectrain_trainer.transplant import characters_of, transplant
from tests.unit.trainer_learn.recipes import make_recipe

Arrays = dict[str, Any]
Build = Callable[[int], Arrays]
OLD, NEW = "0123456789x", "az9ก51é"
SHARED = "159"


def arrays(layer: Any, prefix: str = "head.") -> Arrays:
    return {f"{prefix}{name}": np.array(tensor.numpy()) for name, tensor in layer.state_dict().items()}


def ctc(classes: int, mid_channels: int | None = None) -> Arrays:
    upstream.load()
    head = importlib.import_module("ppocr.modeling.heads.rec_ctc_head").CTCHead
    return arrays(head(6, 1 + classes, mid_channels=mid_channels))


def ctc_mid(classes: int) -> Arrays:
    return ctc(classes, mid_channels=5)


def multi(classes: int) -> Arrays:
    """As upstream's tools/train.py sizes it: the CTC head's classes and three more for NRTR."""
    upstream.load()
    head = importlib.import_module("ppocr.modeling.heads.rec_multi_head").MultiHead
    neck = {"name": "svtr", "dims": 8, "depth": 1, "hidden_dims": 8, "kernel_size": [1, 3], "use_guide": True}
    heads = [
        {"CTCHead": {"Neck": neck, "Head": {"fc_decay": 0.00001}}},
        {"NRTRHead": {"nrtr_dim": 32, "num_decoder_layers": 1, "max_text_length": 25}},
    ]
    sizes = {"CTCLabelDecode": 1 + classes, "NRTRLabelDecode": 1 + classes + 3}
    return arrays(head(16, sizes, head_list=heads))


def nrtr(classes: int) -> Arrays:
    upstream.load()
    head = importlib.import_module("ppocr.modeling.heads.rec_nrtr_head").Transformer
    return arrays(head(d_model=32, nhead=1, num_decoder_layers=1, out_channels=4 + classes))


def encoder(kind: str, lines: Sequence[str], folder: Path, *, space: bool) -> dict[str, int]:
    """Class of each character, by upstream's label encoder."""
    upstream.load()
    path = folder / "dictionary.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    ops = importlib.import_module("ppocr.data.imaug.label_ops")
    found: dict[str, int] = getattr(ops, f"{kind}LabelEncode")(25, str(path), space).dict
    return found


def rows(kind: str, all_: Arrays) -> list[Any]:
    """The tensors of a head, classes first."""
    if kind == "NRTR":
        own = [v.T if "tgt_word" in n else v for n, v in all_.items() if "embedding" in n or "tgt_word" in n]
    else:
        own = [v.T for n, v in all_.items() if n.startswith(("head.fc.", "head.fc2.", "head.ctc_head.fc."))]
    assert len(own) == 2
    return own


@pytest.mark.parametrize("space", [False, True])
@pytest.mark.parametrize(
    ("build", "kinds"),
    [(ctc, ["CTC"]), (ctc_mid, ["CTC"]), (nrtr, ["NRTR"]), (multi, ["CTC", "NRTR"])],
    ids=["ctc", "ctc-mid", "nrtr", "multi"],
)
def test_a_character_keeps_what_was_learnt_of_it(
    build: Build, kinds: list[str], space: bool, tmp_path: Path
) -> None:
    paddle.seed(1)
    old = build(len(OLD) + 1)  # trained with the space
    new = build(len(NEW) + space)
    characters = (*NEW, *([" "] if space else []))
    result, report = transplant(new, old, characters, (*OLD, " "))
    assert [(h.kind, h.carried, h.of) for h in report.heads] == [(k, 3 + space, 7 + space) for k in kinds]
    assert result.keys() == new.keys()
    assert report.fresh == ()
    for kind in kinds:
        mine = encoder(kind, NEW, tmp_path, space=space)
        theirs = encoder(kind, OLD, tmp_path, space=True)
        special = set(mine) - set(NEW) - {" "}
        assert len(special) == {"CTC": 1, "NRTR": 4}[kind]
        for is_, fresh, was in zip(rows(kind, result), rows(kind, new), rows(kind, old), strict=True):
            for character, row in mine.items():
                known = character in special or character in SHARED or (space and character == " ")
                assert np.array_equal(is_[row], was[theirs[character]] if known else fresh[row]), character


def test_the_same_dictionary_gives_the_same_weights() -> None:
    paddle.seed(1)
    old, new = multi(5), multi(5)
    result, report = transplant(new, old, "abcde", "abcde")
    assert all(np.array_equal(result[name], old[name]) for name in old)
    assert report.loaded == report.tensors == len(old)
    assert [str(h) for h in report.heads] == [
        f"{k} head: 5 of 5 characters carried over" for k in ("CTC", "NRTR")
    ]


def test_what_goes_in_is_not_changed() -> None:
    paddle.seed(1)
    old, new = multi(5), multi(4)
    before = {name: array.copy() for name, array in (old | new).items()}
    transplant(new, old, "abxy", "abcde")
    assert all(np.array_equal(before[name], array) for name, array in (old | new).items())


def test_an_unknown_dictionary_of_the_same_size_is_taken_to_be_the_same() -> None:
    paddle.seed(1)
    old, new = ctc(5), ctc(5)
    result, report = transplant(new, old, "abcde", None)
    assert np.array_equal(result["head.fc.weight"], old["head.fc.weight"])
    assert "5 of 5 characters carried over (taken to be the same" in str(report)


def test_an_unknown_dictionary_of_another_size_leaves_the_head() -> None:
    paddle.seed(1)
    old, new = ctc(6), ctc(5)
    result, report = transplant(new, old, "abcde", None)
    assert result == new
    assert report.fresh == ("head.fc.weight", "head.fc.bias")
    assert "0 of 5 characters carried over" in str(report)
    assert "name it in model.pretrained.dictionary" in str(report)
    assert "first weights stay in head.fc.weight, head.fc.bias" in str(report)


def test_a_head_goes_whole_or_not_at_all() -> None:
    """The bias fits whatever comes before it; alone it means nothing."""
    paddle.seed(1)
    old, new = ctc(5), ctc(5)
    old["head.fc.weight"] = old["head.fc.weight"][:-1]
    result, report = transplant(new, old, "abcde", "abcde")
    assert result == new
    assert str(report.heads[0]) == "CTC head: 0 of 5 characters carried over (it is of another shape)"


def test_two_presets_have_nothing_in_common() -> None:
    svtr, crnn = (arrays(build_model(make_recipe(p)), "") for p in ("svtr_nano", "crnn_mv3"))
    result, report = transplant(svtr, crnn, "0123456789", "0123456789")
    assert (report.body, report.loaded) == (0, 0)
    assert result == svtr


def test_half_precision_becomes_the_models_own() -> None:
    paddle.seed(1)
    old, new = ctc(5), ctc(4)
    half = {name: array.astype(np.float16) for name, array in old.items()}
    result, _ = transplant(new, half, "abcd", "abcde")
    assert {array.dtype for array in result.values()} == {np.dtype("float32")}
    assert np.array_equal(result["head.fc.weight"][:, 1:], half["head.fc.weight"][:, 1:5])


def test_what_is_no_array_or_no_number_fits_nothing() -> None:
    own = {"a": np.zeros(3, np.float32)}
    for other in ("text", np.zeros(3, np.uint16), np.array([None] * 3), np.zeros((3, 1), np.float32)):
        assert transplant(own, {"a": other}, "a", "a")[1].loaded == 0


@pytest.mark.parametrize(("classes", "space"), [(3, False), (4, True)])
def test_whether_a_space_is_on_shows_in_the_head(classes: int, space: bool) -> None:
    assert characters_of(ctc(classes), ["a", "b", "cc"]) == ("a", "b", "cc", *([" "] if space else []))
    assert characters_of(nrtr(classes), ["a", "b", "cc"]) == ("a", "b", "cc", *([" "] if space else []))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_dictionary_that_is_not_theirs(classes: int) -> None:
    with pytest.raises(InvalidSpec, match=rf"tells {classes} characters apart, .* has 3 lines"):
        characters_of(ctc(classes), ["a", "b", "c"])


def test_of_a_character_that_stands_twice_the_later_class_counts(tmp_path: Path) -> None:
    """So does upstream's encoder, whose dictionaries hold such."""
    paddle.seed(1)
    old, new = ctc(3), ctc(1)
    result, _ = transplant(new, old, ["a"], ["a", "b", "a"])
    row = encoder("CTC", ["a", "b", "a"], tmp_path, space=False)["a"]
    assert np.array_equal(result["head.fc.bias"][1], old["head.fc.bias"][row])


def test_builtin_dictionaries_are_found_when_upstream_is_loaded() -> None:
    """It then has a module of the package's own name on the path."""
    upstream.load()
    assert "en_dict" in builtin_names()


DICTIONARIES = st.lists(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12, unique=True)


@settings(deadline=None)
@given(DICTIONARIES, DICTIONARIES, st.randoms(use_true_random=False))
def test_any_two_dictionaries(mine: list[str], theirs: list[str], random: Any) -> None:
    rng = np.random.default_rng(random.randrange(2**32))

    def heads(characters: int) -> Arrays:
        shapes = {
            "backbone.conv.weight": (3, 2),
            "head.ctc_head.fc.weight": (4, 1 + characters),
            "head.ctc_head.fc.bias": (1 + characters,),
            "head.gtc_head.embedding.embedding.weight": (5 + characters, 4),
            "head.gtc_head.tgt_word_prj.weight": (4, 5 + characters),
        }
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    new, old = heads(len(mine)), heads(len(theirs))
    result, report = transplant(new, old, mine, theirs)
    shared = set(mine) & set(theirs)
    assert [h.carried for h in report.heads] == [len(shared)] * 2
    for kind, before in (("CTC", 1), ("NRTR", 4)):
        for is_, fresh, was in zip(rows(kind, result), rows(kind, new), rows(kind, old), strict=True):
            assert is_.shape == fresh.shape
            assert np.array_equal(is_[:before], was[:before])
            for i, character in enumerate(mine, before):
                source = was[before + theirs.index(character)] if character in shared else fresh[i]
                assert np.array_equal(is_[i], source)
