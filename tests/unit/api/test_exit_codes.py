"""One table from error to exit code: no error without a row, no code with two policies."""

from collections.abc import Iterator

import pytest

from rectrain_api import errors
from rectrain_api.exit_codes import GENERIC_REASONS, OUTCOMES, codes_with, outcome_of


def every(cls: type[errors.RectrainError]) -> Iterator[type[errors.RectrainError]]:
    """All errors of the API below one."""
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
        yield from every(child)


@pytest.mark.parametrize("error", sorted(set(every(errors.RectrainError)), key=lambda e: e.__name__))
def test_every_error_has_a_row_of_its_own_or_only_groups_others(error: type[errors.RectrainError]) -> None:
    assert error in OUTCOMES or error.__subclasses__()


def test_a_code_has_one_policy() -> None:
    policies: dict[int, set[str]] = {}
    for outcome in OUTCOMES.values():
        policies.setdefault(outcome.exit_code, set()).add(outcome.policy)
    assert all(len(p) == 1 for p in policies.values())
    assert set(policies) == set(GENERIC_REASONS)


def test_lists_for_the_job_controller_are_sorted_unique_and_without_zero() -> None:
    for policy in ("FailJob", "Ignore", "Count"):
        codes = codes_with(policy)  # type: ignore[arg-type]
        assert codes == sorted(set(codes))
        assert codes
        assert 0 not in codes


def test_the_most_specific_row_wins() -> None:
    assert outcome_of(errors.RunConflict("x")).reason == "RunConflict"
    assert outcome_of(errors.InvalidSpec("x")).reason == "InvalidSpec"
    assert outcome_of(ValueError("x")) == OUTCOMES[errors.InternalError]


def test_a_lost_peer_may_come_back() -> None:
    """Not Ignore: ends without limit would be made again without limit."""
    assert outcome_of(errors.PeerLost("x")) == (69, "PeerLost", "Count")
    assert GENERIC_REASONS[69] == "StoreUnavailable"
