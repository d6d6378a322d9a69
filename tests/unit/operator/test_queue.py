"""The work queue: coalescing, one worker a key, delays, back-off; and the limits on writes."""

import asyncio

import pytest

from rectrain_operator.limits import WriteLimits
from rectrain_operator.queue import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, WorkQueue


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(clock)


async def nothing_ready(queue: WorkQueue[str]) -> bool:
    """Whether no key can be taken now."""
    waiting = asyncio.create_task(queue.take())
    for _ in range(5):
        await asyncio.sleep(0)
    taken = waiting.done()
    waiting.cancel()
    return not taken


async def test_a_key_added_many_times_is_worked_on_once(queue: WorkQueue[str]) -> None:
    for _ in range(3):
        queue.add("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert await nothing_ready(queue)


async def test_first_in_first_out(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [await queue.take() for _ in range(3)] == ["a", "b", "c"]


async def test_urgent_keys_go_first(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("b", urgent=True)
    queue.add("c", urgent=True)
    assert [await queue.take() for _ in range(3)] == ["b", "c", "a"]


async def test_one_worker_a_key(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.take()
    queue.add("a")
    assert await nothing_ready(queue)
    queue.done("a")
    assert await queue.take() == "a"


async def test_a_waiting_worker_wakes(queue: WorkQueue[str]) -> None:
    first, second = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    assert {await first, await second} == {"a", "b"}


async def test_a_delay(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5)
    assert await nothing_ready(queue)
    clock.now += 5
    assert await queue.take() == "a"


async def test_the_earlier_time_wins(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 60)
    queue.add_after("a", 5)
    queue.add_after("a", 30)
    clock.now += 5
    assert await queue.take() == "a"
    queue.done("a")
    clock.now += 100
    assert await nothing_ready(queue), "the later times were replaced"


async def test_back_off_doubles_to_a_bound_and_is_forgotten(queue: WorkQueue[str]) -> None:
    delays = [queue.retry("a") for _ in range(30)]
    assert delays[:3] == [FIRST_BACKOFF_S, FIRST_BACKOFF_S * 2, FIRST_BACKOFF_S * 4]
    assert delays[-1] == LONGEST_BACKOFF_S
    queue.succeeded("a")
    assert queue.retry("a") == FIRST_BACKOFF_S
    assert queue.retry("b", at_least_s=7) == 7


async def test_a_burst_of_writes_passes_then_the_rate_holds(clock: Clock) -> None:
    limits = WriteLimits(clock, per_second=10, burst=3)
    assert [limits.reserve() for _ in range(4)] == [0, 0, 0, pytest.approx(0.1)]
    clock.now += 1
    assert limits.reserve() == 0


async def test_so_many_writes_at_once(clock: Clock) -> None:
    limits = WriteLimits(clock, at_once=2, burst=100)
    inside = 0
    most = 0

    async def write() -> None:
        nonlocal inside, most
        async with limits.write():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(write() for _ in range(10)))
    assert most == 2
