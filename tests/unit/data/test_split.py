"""Splits: stable, seeded, never empty when they need not be."""

from hypothesis import given
from hypothesis import strategies as st

from rectrain_data.split import EVAL, partition, split_of

NAMES = [f"images/{i}.png" for i in range(2000)]
HELD_OUT = [7, 13, 16, 31, 32, 33]  # of the first 40, with seed 0


def test_about_a_fifth_is_held_out() -> None:
    train, held_out = partition(NAMES)
    assert 0.17 < len(held_out) / len(NAMES) < 0.23
    assert sorted(train + held_out) == list(range(len(NAMES)))


def test_a_sample_stays_where_it_is_when_others_come_and_go() -> None:
    _, before = partition(NAMES)
    kept = NAMES[::-3]
    _, after = partition(kept)
    assert {kept[i] for i in after} == {NAMES[i] for i in before} & set(kept)


def test_the_hash_never_changes() -> None:
    assert [i for i in range(40) if split_of(NAMES[i]) == EVAL] == HELD_OUT


def test_another_seed_holds_out_another_part() -> None:
    assert partition(NAMES, seed=1) != partition(NAMES, seed=0)


@given(st.lists(st.text(), unique=True, min_size=2, max_size=6), st.floats(0.01, 0.5))
def test_two_samples_or_more_leave_neither_part_empty(names: list[str], fraction: float) -> None:
    train, held_out = partition(names, eval_fraction=fraction)
    assert train
    assert held_out
