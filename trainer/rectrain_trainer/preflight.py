"""One number summed over all ranks before training, within a limit: whoever doesn't answer is named.

Called by `Ranks.open` in the processes that train, once all have met. NCCL may wait for ever for a peer that
it can't reach, and gloo does so while it connects; the supervisors' meeting says nothing of the way between
devices. Who has answered is noted in Paddle's store, through a connection of our own: the other one is
Paddle's, and may hang with it.
"""

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from rectrain_api.errors import PeerLost
from rectrain_trainer.environment import PEERS
from rectrain_trainer.interfaces import interface_of, local_address
from rectrain_trainer.placement import GLOO_INTERFACE, NCCL, NCCL_INTERFACE

LIMIT_S: Final = 60.0
NOTES_S: Final = 5.0
"""For the store to say who has answered: it lives in rank 0's process, which may be the one that hangs."""
_BEGAN: Final = "pre-flight-began"
_ANSWERED: Final = "pre-flight-answered"

T = TypeVar("T")


@dataclass(frozen=True)
class Way:
    """How this rank and its peers are connected, in the words that a person needs."""

    rank: int
    in_pod: int
    pods: tuple[str, ...]
    interface: str
    address: str

    @classmethod
    def of(cls, rank: int, in_pod: int, env: Mapping[str, str] | None = None) -> "Way":
        """From what the supervisor put there, and the route to the first pod that isn't this one."""
        env = os.environ if env is None else env
        pods = tuple(name for name in env.get(PEERS, "").split(",") if name) or ("127.0.0.1",)
        here = rank // in_pod
        towards = next((name for number, name in enumerate(pods) if number != here), pods[0])
        address = env.get("RECTRAIN_POD_IP") or local_address(towards) or "an unknown address"
        named = env.get(NCCL_INTERFACE if env.get("PADDLE_DISTRI_BACKEND") == NCCL else GLOO_INTERFACE)
        return cls(rank, in_pod, pods, named or interface_of(address) or "an unknown interface", address)

    def sentence(self, silent: Sequence[int], began: bool, limit_s: float, said: str = "") -> str:
        """Who didn't answer, through what, and where to look. Pure."""
        how = f"failed ({said})" if said else f"got no answer within {limit_s:.0f} s"
        who = ", ".join(self._named(rank) for rank in silent)
        whose = f"{who} {'take' if len(silent) > 1 else 'takes'} no part"
        if began:
            whose = f"all take part, but the way to {who} doesn't work"
        look = (
            "see whether the processes there hang"
            if not began
            else "see whether the pods reach each other on all ports (NetworkPolicy, firewall)"
        )
        return (
            f"Before training, an all-reduce {how}: {whose}. Rank {self.rank} uses the interface "
            f"{self.interface} ({self.address}); {look}, and whether that interface leads there "
            "(NCCL_SOCKET_IFNAME names another)."
        )

    def _named(self, rank: int) -> str:
        pod = rank // self.in_pod
        where = "this pod" if pod == self.rank // self.in_pod else self.pods[min(pod, len(self.pods) - 1)]
        return f"rank {rank} ({where})"


class Notes:
    """Who has come how far, in Paddle's store."""

    def __init__(self, store: Any, world: int) -> None:
        self._store, self._world = store, world

    def began(self, rank: int) -> None:
        """This rank is about to take part."""
        self._store.add(f"{_BEGAN}-{rank}", 1)

    def answered(self, rank: int) -> None:
        """It has the sum."""
        self._store.add(f"{_ANSWERED}-{rank}", 1)

    def silent(self, rank: int) -> tuple[list[int], bool]:
        """The others that take no part; or, when all do, those without the sum, and True."""
        others = [one for one in range(self._world) if one != rank]
        missing = [one for one in others if not self._store.add(f"{_BEGAN}-{one}", 0)]
        if missing:
            return missing, False
        return [one for one in others if not self._store.add(f"{_ANSWERED}-{one}", 0)] or others, True


def pre_flight(exchange: Callable[[], None], notes: Notes, way: Way, limit_s: float | None = None) -> None:
    """Run `exchange`, which sums a number over all ranks. Raises PeerLost, naming interface and peers."""
    limit_s = LIMIT_S if limit_s is None else limit_s
    notes.began(way.rank)
    said = ""
    try:
        within(limit_s, exchange)
    except TimeoutError:
        pass
    except (RuntimeError, ValueError, OSError) as e:
        said = " ".join(str(e).split())[:300]
    else:
        notes.answered(way.rank)
        return
    try:
        silent, began = within(NOTES_S, lambda: notes.silent(way.rank))
    except (TimeoutError, RuntimeError, ValueError, OSError):
        silent, began = [0], False
    raise PeerLost(way.sentence(silent, began, limit_s, said))


def within(limit_s: float, what: Callable[[], T]) -> T:
    """`what` on a thread of its own, since Paddle's calls can't be interrupted. Raises TimeoutError, and what
    it raises; the thread is left behind, and ends with the process.
    """
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((what(), None))
        except BaseException as e:
            done.put((None, e))

    threading.Thread(target=run, name="pre-flight", daemon=True).start()
    try:
        result, error = done.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"not done after {limit_s} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
