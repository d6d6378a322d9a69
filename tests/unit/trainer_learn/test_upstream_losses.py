"""What we say that upstream loses is what its own code loses: SimpleDataSet, CTCLabelEncode, the samplers."""

import importlib
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rectrain_data import images
from rectrain_data.dictionary import Dictionary
from rectrain_data.upstream_losses import LossCounter, Losses, never_seen
from rectrain_trainer import upstream
from tests.unit.data.conftest import png

MOST = 6
GOOD = png()
JPEG = images.encode(images.decode(GOOD), ".jpg")
LINES: dict[str, tuple[str, bytes | None]] = {
    "plain": ("123", GOOD),
    "as long as may be": ("123456", GOOD),
    "one too long": ("1234567", GOOD),
    "too long for its unknown characters alone": ("123456฿", GOOD),
    "empty": ("", GOOD),
    "one unknown character": ("1฿2", GOOD),
    "two unknown characters": ("x1y", GOOD),
    "wholly unknown": ("xyz", GOOD),
    "a space between": ("1 2", GOOD),
    "a space alone": (" ", GOOD),
    "two code points": ("1e\u0301", GOOD),
    "a second tab": ("12\t34", GOOD),
    "a second tab at once": ("\t34", GOOD),
    "a tab and an unknown character": ("1x\t2", GOOD),
    "no image": ("12", None),
    "an empty image": ("12", b""),
    "text for an image": ("12", b"no image"),
    "a PNG that is cut off": ("12", GOOD[:-100]),
    "a JPEG that is cut off": ("12", JPEG[:-100]),
    "a JPEG that is cut off early": ("12", JPEG[:40]),
    "both faults": ("", b"no image"),
}


class Looked(Exception):
    """Upstream wanted another sample in place of this one."""


@pytest.fixture(params=[True, False], ids=["space", "no-space"])
def dictionary(request: pytest.FixtureRequest) -> Dictionary:
    return Dictionary(tuple("0123456789"), use_space_char=request.param)


CTC = ({"CTCLabelEncode": {}}, ["image", "label", "length"])
GUIDED = ({"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"}}, ["image", "label_ctc", "length"])


def upstream_reads(
    folder: Path, dictionary: Dictionary, encode: dict[str, Any], keep: list[str]
) -> Iterator[tuple[str, str | None]]:
    """Each label, and what upstream's dataset makes of it: the text that it encodes, None if it swaps."""
    upstream.load()
    data: Any = importlib.import_module("ppocr.data.simple_dataset")
    dictionary.write(folder / "dict.txt")
    dataset = data.SimpleDataSet(
        {
            "Global": {
                "character_dict_path": str(folder / "dict.txt"),
                "use_space_char": dictionary.use_space_char,
                "max_text_length": MOST,
            },
            "Eval": {
                "dataset": {
                    "data_dir": str(folder),
                    "label_file_list": [str(folder / "labels.txt")],
                    "transforms": [
                        {"DecodeImage": {"img_mode": "BGR", "channel_first": False}},
                        encode,
                        {"KeepKeys": {"keep_keys": keep}},
                    ],
                },
                "loader": {"shuffle": False},
            },
        },
        "Eval",
        logging.getLogger("silent"),
    )
    read = type(dataset).__getitem__

    def refuse(_self: Any, _index: int) -> None:
        raise Looked

    characters = ["", *dictionary.characters, *([" "] if dictionary.use_space_char else [])]
    for number, (text, _) in enumerate(LINES.values()):
        type(dataset).__getitem__ = refuse  # the sample that it takes instead
        try:
            _, label, length = read(dataset, number)
            yield text, "".join(characters[c] for c in label[:length])
        except Looked:
            yield text, None
        finally:
            type(dataset).__getitem__ = read


@pytest.mark.parametrize("guided", [False, True], ids=["ctc", "guided"])
def test_the_counts_are_those_of_upstreams_own_dataset(
    tmp_path: Path, dictionary: Dictionary, guided: bool
) -> None:
    logging.getLogger("silent").setLevel(logging.CRITICAL)
    counter = LossCounter(dictionary, MOST, ends=2 * guided)
    rows = []
    for number, (text, data) in enumerate(LINES.values()):
        if data is not None:
            (tmp_path / f"{number}.png").write_bytes(data)
        rows.append(f"{number}.png\t{text}\n")
        counter.add(text, opens=data is not None and images.opens(data))
    (tmp_path / "labels.txt").write_text("".join(rows), encoding="utf-8")

    expected = list(upstream_reads(tmp_path, dictionary, *(GUIDED if guided else CTC)))
    losses = counter.losses
    assert losses.samples == len(expected)
    assert losses.swapped == sum(read is None for _, read in expected)
    lost = [len(text) - len(read) for text, read in expected if read is not None]
    assert losses.shortened == sum(n > 0 for n in lost)
    assert losses.characters == sum(lost)
    assert losses.spaced == sum(" " in read for _, read in expected if read is not None)
    space = dictionary.use_space_char
    assert losses == Losses(
        samples=21,
        unreadable=losses.unreadable,  # some versions of OpenCV fill what is cut off with grey
        empty=2,
        too_long=2 + guided,
        unknown=1 if space else 2,
        shortened=5 if space else 6,
        characters=11 if space else 12,
        spaced=2 if space else 0,
    )


def test_an_encoder_that_upstream_gives_a_label(dictionary: Dictionary, tmp_path: Path) -> None:
    """CTCLabelEncode alone: None where we count a label as dropped, and nowhere else."""
    dictionary.write(tmp_path / "dict.txt")
    section = {
        "character_dict_path": str(tmp_path / "dict.txt"),
        "use_space_char": dictionary.use_space_char,
    }
    (encode,) = upstream.load().create_operators([{"CTCLabelEncode": {"max_text_length": MOST}}], section)
    for text, _ in LINES.values():
        label = text.partition("\t")[0]
        counter = LossCounter(dictionary, MOST)
        counter.add(text)
        assert (encode({"label": label}) is None) == (counter.losses.dropped == 1), repr(text)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_formula_for_ranks_is_what_upstreams_sampler_does(
    ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.7 orders the lines with `random.seed(None)` in each process, then takes that sampler, the same as
    2.10's, whose places are dealt out once for the whole run. Here the orders are seeded."""
    upstream.load()
    module: Any = importlib.import_module("ppocr.data.multi_scale_sampler")
    count = 4000
    seen: set[int] = set()
    for rank in range(ranks):
        lines = list(range(count))
        random.Random(rank).shuffle(lines)
        monkeypatch.setattr(module.dist, "get_world_size", lambda: ranks)
        monkeypatch.setattr(module.dist, "get_rank", lambda rank=rank: rank)
        sampler = module.MultiScaleSampler(Lines(count), [[64, 32], [64, 48]], first_bs=32, fix_bs=False)
        for _epoch in range(3):
            seen |= {lines[place] for batch in sampler for _, _, place, _ in batch}
    assert_expected(count - len(seen), count, ranks)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_with_paddles_own_sampler_it_is_others_in_each_epoch(ranks: int) -> None:
    """What 3.7 takes where a config names no sampler: places are dealt out anew each epoch, lines are not."""
    from paddle.io import DistributedBatchSampler

    count = 4000
    seen: list[set[int]] = [set(), set()]
    for rank in range(ranks):
        lines = list(range(count))
        random.Random(rank).shuffle(lines)
        sampler = DistributedBatchSampler(Lines(count), 32, num_replicas=ranks, rank=rank, shuffle=True)
        for epoch in seen:
            epoch |= {lines[place] for batch in sampler for place in batch}
    missed = [set(range(count)) - epoch for epoch in seen]
    for epoch in missed:
        assert_expected(len(epoch), count, ranks)
    assert len(missed[0] & missed[1]) < 0.6 * len(missed[0])


def assert_expected(lost: int, count: int, ranks: int) -> None:
    """Within four deviations of independent samples; these vary less."""
    expected = never_seen(count, ranks)
    share = expected / count
    assert 0.24 < share < 0.35
    assert abs(lost - expected) < 4 * (count * share * (1 - share)) ** 0.5


class Lines:
    """What the sampler asks of a dataset."""

    ds_width, seed = False, None

    def __init__(self, count: int) -> None:
        self.data_idx_order_list = list(range(count))

    def __len__(self) -> int:
        return len(self.data_idx_order_list)


def test_one_process_sees_everything_and_few_samples_are_lost_whole() -> None:
    assert [never_seen(1000, ranks) for ranks in (1, 2, 4, 8)] == [0, 250, 316, 344]
    assert never_seen(3, 8) == 3, "none of 8 ranks gets one of 3"
    assert never_seen(0, 2) == 0
