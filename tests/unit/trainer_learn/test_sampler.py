"""Every sample once an epoch, at a size and in company that change; the same steps wherever one begins."""

import dataclasses
import importlib
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectrain_api.presets import SamplerConfig
from rectrain_trainer import loader as loader_module
from rectrain_trainer import seeding, upstream
from rectrain_trainer.loader import Loader
from rectrain_trainer.ranks import Share
from rectrain_trainer.sampler import Sampler, batch_sizes
from tests.unit.trainer_learn.recipes import make_recipe

SIDES = st.integers(8, 400)
CONFIGS = st.builds(
    SamplerConfig, scales=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5), fix_bs=st.booleans()
)
COUNTS = st.integers(1, 400)
BATCHES = st.integers(1, 40)
WORLDS = st.integers(1, 16)
THREE = SamplerConfig(scales=[(64, 32), (100, 32), (160, 32)])


@given(CONFIGS, COUNTS, BATCHES, WORLDS, st.integers(0, 99), st.integers(0, 99))
def test_every_sample_once_an_epoch_over_all_ranks(
    config: SamplerConfig, count: int, batch: int, world: int, seed: int, epoch: int
) -> None:
    sampler = Sampler(config, count, batch_size=batch, world=world, seed=seed)
    seen: list[int] = []
    for number, (scale, positions) in enumerate(sampler.batches(epoch)):
        assert scale in config.scales
        assert len(positions) == sampler.size_of(epoch, number) > 0
        shares = [Share(rank, world) for rank in range(world)]
        seen += [p for s in shares if s.weight(len(positions)) for p in s.of(positions)]
    assert sorted(seen) == list(range(count))


@given(CONFIGS, COUNTS, BATCHES, WORLDS, st.integers(0, 9), st.data())
def test_loaders_resumed_anywhere_share_out_what_is_left(
    config: SamplerConfig, count: int, batch: int, world: int, epoch: int, data: st.DataObject
) -> None:
    """Every rank's own loader, begun at any step: with the steps before it, each sample once, on one rank."""
    recipe = dataclasses.replace(make_recipe(batch_size=batch), sampler=config)
    source = SimpleNamespace(open=lambda: range(count), parts=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_module, "BatchMaker", lambda *_: lambda task: task)
        loaders = [Loader(recipe, source, share=Share(rank, world)) for rank in range(world)]  # type: ignore[arg-type]
    sampler = Sampler(config, count, batch_size=batch, world=world, seed=recipe.seed)
    start = data.draw(st.integers(0, len(sampler)))
    before = [p for _, positions in itertools.islice(sampler.batches(epoch), start) for p in positions]
    steps = list(zip(*(loader.batches(epoch, start) for loader in loaders), strict=True))
    assert len(steps) == len(loaders[0]) - start
    seen = list(before)
    for number, tasks in enumerate(steps, start):
        size = loaders[0].samples_of(epoch, number)
        assert len({task.scale for task in tasks}) == 1, "one size for all ranks of a step"
        seen += [
            p
            for one, task in zip(loaders, tasks, strict=True)
            if one.share.weight(size)
            for p in task.positions
        ]
    assert sorted(seen) == list(range(count))


@given(CONFIGS, COUNTS, BATCHES, WORLDS)
def test_every_epoch_has_the_same_steps_in_another_order(
    config: SamplerConfig, count: int, batch: int, world: int
) -> None:
    sampler = Sampler(config, count, batch_size=batch, world=world, seed=3)
    epochs = [[(scale, len(positions)) for scale, positions in sampler.batches(e)] for e in range(4)]
    assert {len(epoch) for epoch in epochs} == {len(sampler)}
    assert all(Counter(epoch) == Counter(epochs[0]) for epoch in epochs)
    full = dict(zip(config.scales, batch_sizes(config, batch), strict=True))
    for epoch in epochs:
        assert all(size == full[scale] * world for scale, size in epoch[:-1]), "only the last may be smaller"


@given(CONFIGS, COUNTS, BATCHES, st.integers(0, 9), st.data())
def test_beginning_at_a_step_gives_the_batches_from_there(
    config: SamplerConfig, count: int, batch: int, epoch: int, data: st.DataObject
) -> None:
    whole = list(Sampler(config, count, batch_size=batch, seed=3).batches(epoch))
    start = data.draw(st.integers(0, len(whole)))
    another = Sampler(config, count, batch_size=batch, seed=3)
    assert list(another.batches(epoch, start)) == whole[start:]


def test_sizes_and_batch_mates_change_with_the_epoch() -> None:
    """Upstream's are drawn once: a sample has one size for the whole run."""
    sampler = Sampler(THREE, 300, batch_size=8, seed=3)
    sizes: dict[int, set[tuple[int, int]]] = {i: set() for i in range(300)}
    mates: set[frozenset[int]] = set()
    for epoch in range(20):
        for scale, positions in sampler.batches(epoch):
            mates.add(frozenset(positions))
            for position in positions:
                sizes[position].add(scale)
    assert all(len(seen) > 1 for seen in sizes.values())
    assert len(mates) == 20 * len(sampler)
    orders = {tuple(scale for scale, _ in sampler.batches(epoch)) for epoch in range(20)}
    assert len(orders) == 20


@given(COUNTS, BATCHES, st.integers(0, 9))
def test_one_size_is_no_change(count: int, batch: int, epoch: int) -> None:
    order = seeding.epoch_order(7, epoch, count).tolist()
    sampler = Sampler(SamplerConfig(scales=[(100, 32)]), count, batch_size=batch, seed=7)
    plain = [((100, 32), order[k : k + batch]) for k in range(0, count, batch)]
    assert list(sampler.batches(epoch)) == plain


@pytest.mark.parametrize("fixed", [True, False])
def test_full_batches_are_as_large_as_upstreams(fixed: bool) -> None:
    upstream.load()
    module = importlib.import_module("ppocr.data.multi_scale_sampler")

    class Set(SimpleNamespace):
        def __len__(self) -> int:
            return 1000

    config = SamplerConfig(scales=[(320, 32), (320, 48), (320, 64), (96, 16)], fix_bs=fixed)
    rows = Set(data_idx_order_list=list(range(1000)), ds_width=False, seed=1)
    theirs = module.MultiScaleSampler(rows, [list(s) for s in config.scales], first_bs=128, fix_bs=fixed)
    sizes = {(width, height): size for width, height, size in theirs.img_batch_pairs}
    assert dict(zip(config.scales, batch_sizes(config, 128), strict=True)) == sizes
