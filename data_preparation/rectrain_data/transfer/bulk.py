"""Work on many files, a bounded number at a time.

Used by `transfer.store`. Threads share one iterator, so that a million items cost no memory; the first
error, or Ctrl-C, stops the rest at the next item.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.2


def for_each(items: Iterable[T], work: Callable[[T], object], *, limit: int) -> None:
    """Call `work` on every item, at most `limit` at once. Raises the first error of any."""
    todo, lock, stop = iter(items), threading.Lock(), threading.Event()
    done = object()
    idle, busy = threading.Condition(), 0

    def take() -> T | object:
        with lock:
            return next(todo, done)

    def worker() -> None:
        nonlocal busy
        with idle:
            busy += 1
        try:
            while not stop.is_set():
                item = take()
                if item is done:
                    return
                work(item)  # type: ignore[arg-type]
        except BaseException:
            stop.set()
            raise
        finally:
            with idle:
                busy -= 1
                idle.notify_all()

    with ThreadPoolExecutor(max_workers=limit, thread_name_prefix="transfer") as pool:
        try:
            left = {pool.submit(worker) for _ in range(limit)}
            while left:  # with a timeout, so that Ctrl-C is seen between waits
                finished, left = wait(left, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
        finally:
            stop.set()
            with idle:  # Ctrl-C while a thread was being started: the pool doesn't know that one
                idle.wait_for(lambda: busy == 0)
