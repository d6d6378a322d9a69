import dataclasses
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectrain_api.errors import DatasetInvalid, InputMissing, InternalError
from rectrain_trainer import upstream
from rectrain_trainer.loader import Batch, BatchMaker, Loader, Task
from rectrain_trainer.model import dictionary_section
from rectrain_trainer.sources import StagedSource
from tests.unit.trainer_learn.digits import draw
from tests.unit.trainer_learn.recipes import RECAUG, loose, make_recipe


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


def drop_image(folder: Path, number: int, content: bytes | None) -> None:
    path = folder / f"images/{number:05d}.png"
    path.write_bytes(content) if content is not None else path.unlink()


@pytest.fixture
def few(tmp_path: Path) -> Path:
    from tests.unit.trainer_learn.digits import make_digits

    make_digits(tmp_path, 6, seed=5)
    return tmp_path


def test_every_sample_once_an_epoch_and_the_last_batch_is_kept(digits: Path) -> None:
    with Loader(make_recipe(), loose(digits)) as loader:
        batches = list(loader.batches(epoch=0))
        assert [len(b.images) for b in batches] == [8, 8, 8, 8, 8, 8, 2]
        assert len(loader) == 7
        samples = loose(digits).open()
        truth = sorted(samples.label(i) for i in range(50))
        digits_of = [
            "".join(str(c - 1) for c in row[:n]) for b in batches for row, n in zip(*b.targets, strict=True)
        ]
    assert sorted(digits_of) == truth


def test_epochs_differ_and_repeat_exactly(digits: Path) -> None:
    recipe = make_recipe(augment=[RECAUG])
    with Loader(recipe, loose(digits)) as loader:
        first, second = list(loader.batches(0)), list(loader.batches(1))
        assert not same(first, second)
        assert same(first, list(loader.batches(0)))
        assert same(first[4:], list(loader.batches(0, start=4)))


def test_an_epoch_takes_another_part_of_a_label_file_each_time(digits: Path) -> None:
    (digits / "few.txt").write_text("".join((digits / "labels.txt").read_text().splitlines(True)[:10]))
    files = (digits / "labels.txt", digits / "few.txt")
    source = StagedSource(digits, packed=False, files=files, ratios=(0.3, 1.0))
    with Loader(make_recipe(), source) as loader:
        named = [
            [name for number in range(len(loader)) for name in loader.names_of(epoch, number, 8)]
            for epoch in range(30)
        ]
        parts = [{name for name in epoch if "labels.txt" in name} for epoch in named]
        assert {
            (len(epoch), len(set(epoch)), len(part)) for epoch, part in zip(named, parts, strict=True)
        } == {(25, 25, 15)}
        assert len(set.union(*parts)) == 50
        assert parts[0] != parts[1]
        assert loader.samples == 60, "what a resumed run compares: 0.3 of 49 or 51 is as many as of 50"
        batches = list(loader.batches(3))
        assert sum(len(b.images) for b in batches) == 25
        assert same(batches[2:], list(loader.batches(3, start=2)))
    train, held_out = (
        {name.rpartition("(")[2] for name in map(part.name, range(len(part)))}
        for part in (replace(source, part=part, eval_fraction=0.3).open() for part in ("train", "eval"))
    )
    assert train.isdisjoint(held_out), "an image that both files have isn't trained on and held out"


def test_label_files_of_which_an_epoch_takes_nothing_are_refused(digits: Path) -> None:
    source = StagedSource(digits, packed=False, files=(digits / "labels.txt",), ratios=(0.001,))
    with pytest.raises(DatasetInvalid, match=r"nothing to train on: .*ratio_list"):
        Loader(make_recipe(), source)


def test_batches_of_several_sizes(digits: Path) -> None:
    scales = {"sampler.scales": "[[64,32],[100,32],[160,32]]"}
    augment: list[dict[str, Any]] = [RECAUG, {"ABINetRecAug": {}}]
    recipe = make_recipe("crnn_mv3", augment=augment, overrides=scales)
    one_size = make_recipe("crnn_mv3", augment=augment)
    with Loader(recipe, loose(digits)) as loader, Loader(one_size, loose(digits)) as plain:
        first, second = list(loader.batches(0)), list(loader.batches(1))
        for epoch, batches in enumerate((first, second)):
            counts = [len(batch.images) for batch in batches]
            assert counts == [loader.samples_of(epoch, number) for number in range(len(loader))]
            assert sum(counts) == 50
        shapes = [batch.images.shape[1:] for batch in first]
        assert set(shapes) == {(3, 32, 64), (3, 32, 100), (3, 32, 160)}
        assert [len(b.images) for b in first if b.images.shape[3] == 64] == [8, 8, 8, 2]
        assert sorted(shapes) == sorted(batch.images.shape[1:] for batch in second)
        assert shapes != [batch.images.shape[1:] for batch in second]
        assert same(first[4:], list(loader.batches(0, start=4)))
        # a sample is augmented as at one size: only the resize differs
        at_100 = {image.tobytes() for b in first if b.images.shape[3] == 100 for image in b.images}
        assert at_100 <= {image.tobytes() for batch in plain.batches(0) for image in batch.images}


def test_joined_samples_depend_on_seed_epoch_and_sample_alone_and_none_is_left_out(digits: Path) -> None:
    recipe = make_recipe("pp_ocrv5_mobile", augment=[{"RecConAug": {"prob": 1, "ext_data_num": 2}}])
    with Loader(recipe, loose(digits)) as loader, Loader(recipe, loose(digits), workers=2) as apart:
        first = list(loader.batches(0))
        assert same(first, list(apart.batches(0)))
        assert same(first[3:], list(loader.batches(0, start=3)))
        assert not same(first, list(loader.batches(1)))
        order = [i for _, positions in loader._sampler.batches(0) for i in positions]
    samples = loose(digits).open()
    truths = [samples.label(i) for i in range(50)]
    read = [
        "".join(recipe.characters[c - 1] for c in row[:n])
        for batch in first
        for row, n in zip(batch.targets[0], batch.targets[2], strict=True)
    ]
    assert sorted(order) == list(range(50))
    assert all(text.startswith(truths[i]) for text, i in zip(read, order, strict=True))
    assert sum(len(text) for text in read) > 1.5 * sum(map(len, truths))
    for batch in first:  # the guide's labels: <s>, the text by its own classes, </s>
        _, ctc, guide, lengths, ratios = batch
        assert ratios.dtype == np.float64
        assert all(0 < ratio <= 1 for ratio in ratios)
        for row, text, n in zip(guide, ctc, lengths, strict=True):
            assert row[: n + 2].tolist() == [2, *(text[:n] + 3), 3]


def test_a_guided_model_trains_labels_of_the_longest_text(tmp_path: Path) -> None:
    """Upstream's encoder takes the guide's begin and end off it."""
    digits = "1234567890" * 3
    (tmp_path / "a.png").write_bytes(draw(digits[:25], random.Random(1)))
    (tmp_path / "labels.txt").write_text(f"a.png\t{digits[:25]}\n")
    recipe = make_recipe("pp_ocrv5_mobile")
    with Loader(recipe, loose(tmp_path)) as loader:
        (batch,) = loader.batches(0)
    _, ctc, guide, lengths, _ = batch
    assert lengths.tolist() == [25]
    assert (ctc[0, :3].tolist(), guide[0, :3].tolist(), guide[0, 26]) == ([2, 3, 4], [2, 5, 6], 3)
    refusing = upstream.load().create_operators(
        [{"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode", "max_text_length": 25}}],
        dictionary_section(recipe.characters, tmp_path, use_space_char=False),
    )[0]
    assert refusing({"image": None, "label": digits[:24]}) is None
    assert refusing({"image": None, "label": digits[:23]}) is not None


def test_what_is_joined_fits_the_longest_text(digits: Path) -> None:
    """Upstream's encoder drops what is longer, and takes another sample."""
    recipe = make_recipe("pp_ocrv5_mobile", augment=[{"RecConAug": {"prob": 1, "ext_data_num": 9}}])
    short = dataclasses.replace(recipe, max_text_length=6)
    with Loader(short, loose(digits)) as loader:
        lengths = np.concatenate([batch.targets[2] for batch in loader.batches(0)])
    assert lengths.max() == 6


def test_a_sample_to_be_joined_that_is_no_image_is_named(few: Path) -> None:
    drop_image(few, 3, b"not an image")
    recipe = make_recipe("pp_ocrv5_mobile", augment=[{"RecConAug": {"prob": 1, "ext_data_num": 9}}])
    with pytest.raises(DatasetInvalid, match=r"labels\.txt line 4.*RecConAug"):
        BatchMaker(recipe, loose(few))(Task(0, (320, 48), [0, 1, 2]))


@pytest.mark.parametrize("name", ["RecAug", "SVTRRecAug", "ABINetRecAug", "ParseQRecAug"])
def test_augmentation_depends_on_seed_epoch_and_sample_alone(digits: Path, name: str) -> None:
    small = make_recipe(augment=[{name: {}}], batch_size=5)
    large = make_recipe(augment=[{name: {}}], batch_size=25)
    with Loader(small, loose(digits)) as a, Loader(large, loose(digits)) as b:
        in_fives = np.concatenate([batch.images for batch in a.batches(3)])
        in_whole = np.concatenate([batch.images for batch in b.batches(3)])
    assert np.array_equal(in_fives, in_whole)
    with Loader(make_recipe(augment=[], batch_size=25), loose(digits)) as plain:
        assert not np.array_equal(in_whole, np.concatenate([batch.images for batch in plain.batches(3)]))


def test_the_callers_generators_are_left_alone(digits: Path) -> None:
    random.seed(1)
    np.random.seed(1)
    expected = (random.random(), np.random.random())
    random.seed(1)
    np.random.seed(1)
    with Loader(make_recipe(augment=[RECAUG]), loose(digits)) as loader:
        next(loader.batches(0))
    assert (random.random(), np.random.random()) == expected


def test_a_path_that_names_arabic_turns_nothing_around(tmp_path: Path) -> None:
    from rectrain_trainer.model import build_decoder

    decoder = build_decoder(["\u0628", "\u062a"], use_space_char=True)
    probabilities = np.eye(4, dtype=np.float32)[[1, 0, 2, 3]][None]
    assert decoder(probabilities)[0][0] == "\u0628\u062a "


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"not an image", "can't be decoded", id="garbage"),
        pytest.param(b"", "invalid", id="empty"),
    ],
)
def test_an_unreadable_image_is_named_never_replaced(few: Path, content: bytes, said: str) -> None:
    drop_image(few, 3, content)
    with Loader(make_recipe(), loose(few)) as loader, pytest.raises(DatasetInvalid) as caught:
        list(loader.batches(0))
    assert "labels.txt line 4" in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_image_is_named(few: Path) -> None:
    drop_image(few, 0, None)
    with Loader(make_recipe(), loose(few)) as loader, pytest.raises(InputMissing, match=r"00000\.png"):
        list(loader.batches(0))


@pytest.mark.parametrize("label", ["", "1234567890123", "abc"])
def test_a_label_that_cannot_be_encoded_is_an_error(few: Path, label: str) -> None:
    lines = (few / "labels.txt").read_text().splitlines()
    lines[2] = f"images/00002.png\t{label}"
    (few / "labels.txt").write_text("\n".join(lines) + "\n")
    with Loader(make_recipe(), loose(few)) as loader, pytest.raises(DatasetInvalid, match="line 3"):
        list(loader.batches(0))


def test_an_empty_set_is_refused(few: Path) -> None:
    (few / "labels.txt").write_text("")
    with pytest.raises(DatasetInvalid, match="no samples"):
        Loader(make_recipe(), loose(few))


def test_a_dead_worker_is_a_sentence() -> None:
    from rectrain_trainer.workers import WorkerPool

    pool = WorkerPool(Dying, (), 1)
    with pytest.raises(InternalError, match="memory"):
        list(pool.map([1], ahead=1))
    pool.close()


class Dying:
    """A worker that the kernel kills."""

    def __call__(self, _task: int) -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return 0
