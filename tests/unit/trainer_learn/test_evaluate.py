"""What an evaluation reads, and that its figures of upstream's name are upstream's."""

import copy
import importlib
import logging
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import paddle
import pytest

from rectrain_api.errors import DatasetInvalid, Interrupted
from rectrain_trainer import evaluate as evaluate_module
from rectrain_trainer import upstream
from rectrain_trainer.evaluate import EvalSet, Preparation, _by_width, _Way, evaluate, find
from rectrain_trainer.figures import MEANING, Evaluation, Found, quality
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_decoder, dictionary_section
from rectrain_trainer.ranks import Ranks, Share
from rectrain_trainer.scores import tally_of
from rectrain_trainer.upstream_scores import times_counted
from tests.unit.trainer_learn.digits import draw
from tests.unit.trainer_learn.recipes import make_recipe

RECIPE = make_recipe("crnn_mv3", use_space_char=True)
"""32 x 100, any width at inference."""


@dataclass
class Listed:
    """Samples as they are listed: label and image."""

    rows: Sequence[tuple[str, bytes]]

    def open(self) -> "Listed":
        return self

    def name(self, i: int) -> str:
        return f"sample {i}"

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, i: int) -> str:
        return self.rows[i][0]

    def image_bytes(self, i: int) -> bytes:
        return self.rows[i][1]


def images(count: int, longest: int) -> list[bytes]:
    rng = random.Random(5)
    texts = ["".join(rng.choice("0123456789") for _ in range(rng.randint(1, longest))) for _ in range(count)]
    return [draw(text, rng) for text in texts]


class Shades(paddle.nn.Layer):  # type: ignore[misc]
    """A model that takes any width: it reads a character for each shade, four columns at a time."""

    def forward(self, images: Any) -> Any:
        shades = paddle.nn.functional.avg_pool2d(images, (32, 4)).mean(axis=1).squeeze(1)
        centres = paddle.concat([paddle.zeros([1]), paddle.linspace(0.1, 0.9, RECIPE.classes - 1)])
        return -(shades.unsqueeze(2) - centres).abs()


@pytest.fixture(scope="module")
def model() -> Any:
    return Shades()


@pytest.fixture(scope="module")
def decoder() -> Any:
    return build_decoder(RECIPE.characters, use_space_char=True)


def read_as_trained(model: Any, decoder: Any, encoded: bytes) -> str:
    prepared = Preparation(RECIPE.image_shape, padded=True)(encoded)
    assert prepared is not None
    return str(evaluate_module.read(model, decoder, iter([prepared[None]]))[0][0])


@pytest.fixture(scope="module")
def trapped(model: Any, decoder: Any) -> Listed:
    """Labels of what is read, each fifth one with something that upstream's evaluation stumbles over."""
    rows = []
    for i, encoded in enumerate(images(45, 12)):
        text = read_as_trained(model, decoder, encoded)
        label = (
            text,
            f"{text}x" if i % 2 else f"ก{text}",  # vanishes from the truth
            f"{text[:1]} {text[1:]}",  # ignored
            ("", "xyz", "1" * 26, "")[i // 5 % 4],  # refused; the last sample's too: the first one follows
            text[:-1] + "0",
        )[i % 5 if i < 44 else 3]
        rows.append((label, encoded))
    return Listed(rows)


def upstreams_own(model: Any, listed: Listed, folder: Path) -> dict[str, float]:
    """Its data set, loader, decoder, metric and evaluation, as tools/eval.py puts them together."""
    upstream.load()
    data: Any = importlib.import_module("ppocr.data")
    program: Any = importlib.import_module("tools.program")
    (folder / "images").mkdir()
    lines = []
    for i, (label, encoded) in enumerate(listed.rows):
        (folder / f"images/{i}.png").write_bytes(encoded)
        lines.append(f"images/{i}.png\t{label}\n")
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")
    section = dictionary_section(RECIPE.characters, folder, use_space_char=True)
    config = {
        "Global": copy.deepcopy(section),
        "Eval": {
            "dataset": {
                "name": "SimpleDataSet",
                "data_dir": str(folder),
                "label_file_list": [str(folder / "labels.txt")],
                "transforms": [
                    {"DecodeImage": {"img_mode": "BGR", "channel_first": False}},
                    {"CTCLabelEncode": {"max_text_length": RECIPE.max_text_length}},
                    {"RecResizeImg": {"image_shape": list(RECIPE.image_shape)}},
                    {"KeepKeys": {"keep_keys": ["image", "label", "length"]}},
                ],
            },
            "loader": {"shuffle": False, "drop_last": False, "batch_size_per_card": 8, "num_workers": 0},
        },
    }
    loader = data.build_dataloader(config, "Eval", "cpu", logging.getLogger("upstream-eval"))
    post_process = upstream.load().build_post_process({"name": "CTCLabelDecode"}, section)
    metric = upstream.load().build_metric({"name": "RecMetric", "main_indicator": "acc"})
    return dict(program.eval(model, loader, post_process, metric, "rec"))


def test_acc_and_norm_edit_dis_are_what_upstream_prints(
    model: Any, decoder: Any, trapped: Listed, tmp_path: Path
) -> None:
    own = upstreams_own(model, trapped, tmp_path)
    found = evaluate(model, decoder, EvalSet(RECIPE, trapped))
    assert found.upstream_acc == pytest.approx(own["acc"], abs=1e-9)
    assert found.upstream_norm_edit_dis == pytest.approx(own["norm_edit_dis"], abs=1e-9)
    refused = [label for label, _ in trapped.rows if label in ("", "xyz", "1" * 26)]
    assert (found.replaced, found.cut) == (len(refused), 9)
    assert 0.5 < own["acc"] < 1, "the traps don't show"
    assert found.accuracy < found.accuracy_as_trained < own["acc"], "upstream's is too high"


def test_the_gap_is_explained(model: Any, decoder: Any, trapped: Listed) -> None:
    found = evaluate(model, decoder, EvalSet(RECIPE, trapped))
    assert found.found.squeezed > 5
    assert found.gap() == (
        f"PaddleOCR's own evaluation would say acc {found.upstream_acc:.1%} of these weights: it squeezes "
        f"images to the width of training ({found.found.squeezed} are wider); it ignores spaces "
        f"({found.found.tally.space_only} differ in them alone); it takes characters outside the dictionary "
        "out of labels (9 have some); it counts the next sample in place of labels that it refuses (10)."
    )
    assert replace(found, upstream_acc=found.accuracy + 0.009).gap() == ""
    report = quality(found)
    assert report["gap"] == found.gap()
    assert {name: row["meaning"] for name, row in report["figures"].items()} == MEANING
    assert report["figures"]["upstreamAcc"]["value"] == found.upstream_acc
    assert all(report[section] for section in ("confusions", "byCharacter", "byLength"))


@pytest.mark.parametrize("world", [2, 3])
def test_shares_are_the_whole(model: Any, decoder: Any, trapped: Listed, world: int) -> None:
    held_out = EvalSet(RECIPE, trapped)
    whole = find(model, decoder, held_out)
    merged = Found()
    for rank in range(world):
        merged.merge(Found.of(find(model, decoder, held_out, Share(rank, world)).to_json()))
    assert merged.tally == whole.tally
    assert merged.upstream.figures() == pytest.approx(whole.upstream.figures(), abs=1e-12)
    merged.upstream.distance = whole.upstream.distance
    assert merged == whole


def test_inference_keeps_the_ratio_as_paddleocr_does() -> None:
    """Against PaddleX's arithmetic: at least the trained width, at most 3200, padded with 0."""
    prepare = Preparation.of(RECIPE)
    for height, width, expected in (
        (32, 40, 100),
        (64, 200, 100),
        (20, 70, 112),
        (31, 999, 1031),
        (8, 900, 3200),
    ):
        shade = np.full((height, width, 3), 200, np.uint8)
        prepared = prepare.both(cv2.imencode(".png", shade)[1].tobytes())
        assert prepared is not None
        assert prepared.deployed.shape == (3, 32, expected)
        assert prepared.as_trained.shape == (3, 32, 100)
        assert (prepared.deployed is prepared.as_trained) is (expected == 100)
        inked = min(-(-32 * width // height), expected)
        assert (prepared.deployed[:, :, inked:] == 0).all()
        assert prepared.deployed[:, :, :inked] == pytest.approx(200 / 255 * 2 - 1, abs=1e-6)


def test_a_network_of_fixed_width_is_deployed_as_it_is_trained() -> None:
    recipe = make_recipe("svtr_nano")
    prepared = Preparation.of(recipe).both(draw("1234567890", random.Random(1)))
    assert prepared is not None
    assert prepared.deployed is prepared.as_trained
    assert prepared.deployed.shape == (3, 32, 64)
    assert Preparation.of(recipe)(b"no image") is None
    assert Preparation.of(recipe).both(b"") is None


def ways(widths: Sequence[int]) -> Iterator[tuple[_Way, Any]]:
    for i, width in enumerate(widths):
        yield _Way(i, False), np.full((3, 8, width), i, np.float32)


def test_no_image_is_padded_to_anothers_width(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    widths = [rng.choice((100, 101, 250, 3200)) for _ in range(300)]
    monkeypatch.setattr(evaluate_module, "WAITING_BYTES", 40 * 3 * 8 * 3200 * 4)
    seen = []
    for order, batch in _by_width(ways(widths), 100):
        assert batch.shape[0] * batch.shape[3] <= max(64 * 100, batch.shape[3])
        for way, image in zip(order, batch, strict=True):
            assert image.shape[2] == widths[way.position]
            assert (image == way.position).all()
            seen.append(way.position)
    assert sorted(seen) == list(range(300))


def test_images_that_wait_for_others_of_their_width_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "WAITING_BYTES", 10_000_000)
    asked = [0]

    def counted() -> Iterator[tuple[_Way, Any]]:
        for way, image in ways(range(100, 3100)):
            asked[0] += image.nbytes
            yield way, image

    given = 0
    for _, batch in _by_width(counted(), 100):
        given += batch.nbytes
        assert asked[0] - given <= 10_000_000 + batch.nbytes


@pytest.mark.parametrize(
    ("accepted", "times"),
    [
        ("", []),
        ("yyy", [1, 1, 1]),
        ("nyy", [0, 2, 1]),
        ("ynny", [1, 0, 0, 3]),
        ("nynn", [0, 4, 0, 0]),
        ("nn", [0, 0]),
    ],
)
def test_a_refused_label_is_replaced_by_the_next(accepted: str, times: list[int]) -> None:
    assert times_counted([a == "y" for a in accepted]) == times


def test_labels_that_upstream_refuses_altogether_have_no_figure(model: Any, decoder: Any) -> None:
    found = evaluate(model, decoder, EvalSet(RECIPE, Listed([("xyz", images(1, 3)[0])])))
    assert (found.upstream_acc, found.upstream_norm_edit_dis, found.replaced) == (None, None, 1)
    assert found.accuracy == 0
    assert found.gap() == ""


def test_an_empty_set_and_what_is_no_image_are_refused(model: Any, decoder: Any) -> None:
    with pytest.raises(DatasetInvalid, match="no samples"):
        evaluate(model, decoder, EvalSet(RECIPE, Listed([])))
    with pytest.raises(DatasetInvalid, match="sample 0 can't be used"):
        evaluate(model, decoder, EvalSet(RECIPE, Listed([("1", b"none")])))


def test_figures_and_the_line_of_the_log() -> None:
    found = Found(tally_of([("12", "12"), ("34", "3")]), exact_as_trained=1)
    found.upstream.add([("12", "12"), ("34", "3")])
    result = Evaluation.of(found, cut=0, replaced=0)
    assert result.sentence == "accuracy 50.0%, CER 25.0%"
    assert result.figures() == {
        "accuracy": 0.5,
        "accuracyAsTrained": 0.5,
        "characterErrorRate": 0.25,
        "normEditDistance": 0.75,
        "graphemeErrorRate": 0.25,
        "graphemeNormEditDistance": 0.75,
        "upstreamAcc": pytest.approx(0.5, abs=1e-5),
        "upstreamNormEditDis": pytest.approx(0.75, abs=1e-5),
        "samples": 2,
    }


def test_rank_0_told_to_stop_while_it_waits_for_the_others(model: Any, decoder: Any, trapped: Listed) -> None:
    """One that will never hand in anything doesn't hold it up."""
    interrupt, polls = Interrupt(10), iter(range(9))

    def add(*_: object) -> int:
        if next(polls) == 3:
            interrupt._on_signal(signal.SIGTERM, None)
        return 0

    ranks = Ranks(Share(0, 2))
    ranks._store = SimpleNamespace(add=add)
    few = EvalSet(RECIPE, Listed(trapped.rows[:2]))
    with interrupt.deferred(), pytest.raises(Interrupted), interrupt.immediate():
        evaluate(model, decoder, few, ranks)
    assert next(polls) == 4
