"""The ranks of one run, one a device: how they average gradients, start from one state and wait for rank 0.

Called by the run and the train stage, in the process that trains; the supervisor (`gang`) has put Paddle's
environment there. Everything that goes wrong between ranks is PeerLost: gloo says so at once when a peer
dies, or after 30 s without a word; NCCL may wait for ever, and the supervisor ends that.

Nothing waits for a slow rank within a collective for long: where one rank may take longer than another (an
evaluation), the others wait at Paddle's store, which has no time limit.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rectrain_api.errors import InternalError, PeerLost, RectrainError
from rectrain_trainer.environment import IN_POD, RANK, WORLD
from rectrain_trainer.preflight import Notes, Way, pre_flight

_GATE_POLL_S: Final = 0.05
_CONNECT_S: Final = 60
_CAME: Final = "came"
_SHARED: Final = "shared"
_HANDED_IN: Final = "handed-in"
_SIGNS: Final = "signs"


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this rank's."""

    rank: int = 0
    world: int = 1

    def of(self, positions: list[int]) -> list[int]:
        """This rank's samples of one step: every sample is exactly one rank's, sizes differ by at most one.

        A rank that gets none (a last step with fewer samples than ranks) computes the first one again, with
        the weight 0: it has to take part.
        """
        size, more = divmod(len(positions), self.world)
        start = self.rank * size + min(self.rank, more)
        mine = positions[start : start + size + (self.rank < more)]
        return mine or positions[:1]

    def weight(self, count: int) -> float:
        """Of this rank's mean gradient in the mean over a step's `count` samples."""
        size, more = divmod(count, self.world)
        return (size + (self.rank < more)) / count


ALONE: Final = Share()


class Ranks:
    """`open` before the first use; a run of one rank needs neither."""

    def __init__(self, share: Share = ALONE, in_pod: int = 1) -> None:
        """`in_pod`: ranks in each pod."""
        self.share = share
        self.in_pod = in_pod
        self._store: Any = None
        self._shared = self._collected = 0
        """How often each was done: the same on every rank."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> "Ranks":
        """As the supervisor says; alone without one."""
        env = os.environ if env is None else env
        return cls(Share(int(env.get(RANK, 0)), int(env.get(WORLD, 1))), int(env.get(IN_POD, 1)))

    @property
    def alone(self) -> bool:
        return self.share.world == 1

    @property
    def first(self) -> bool:
        """Rank 0, which alone reports and writes to S3."""
        return self.share.rank == 0

    @property
    def leads_pod(self) -> bool:
        """The first of its pod, which stages and checks the data for all there."""
        return self.share.rank % self.in_pod == 0

    def open(self) -> None:
        """Meet the others; whoever comes late is waited for. Then whoever doesn't answer is lost. Raises
        PeerLost.

        On threads of their own: Paddle's calls can't be interrupted, and a signal must be.
        """
        if self.alone:
            return
        import paddle  # noqa: F401 - here: imported first on a thread, it would be in static mode elsewhere

        pool = ThreadPoolExecutor(1, thread_name_prefix="ranks")
        try:
            notes = pool.submit(self._meet).result()
        finally:
            pool.shutdown(wait=False)
        pre_flight(self._sum_up, notes, Way.of(self.share.rank, self.in_pod))

    def _meet(self) -> Notes:
        import paddle

        with _between_ranks("meeting the other ranks"):
            self._store = paddle.base.core.create_or_get_global_tcp_store()
            self._store.add(_CAME, 1)
            self._wait(_CAME, self.share.world)
            address, _, port = os.environ["PADDLE_MASTER"].rpartition(":")
            own = paddle.base.core.TCPStore(address, int(port), False, self.share.world, _CONNECT_S)
        return Notes(own, self.share.world)

    def _sum_up(self) -> None:
        import paddle

        paddle.distributed.init_parallel_env()
        total = paddle.ones([1], "int64")
        paddle.distributed.all_reduce(total)
        if (said := int(total.numpy()[0])) != self.share.world:
            raise RuntimeError(f"{self.share.world} ranks with a 1 each made {said}")

    def average_gradients(self, model: Any, count: int) -> None:
        """Every rank gets the mean gradient over all of the step's `count` samples."""
        if self.alone:
            return
        from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients_with_group

        with _between_ranks("averaging gradients"):
            average: Any = fused_allreduce_gradients_with_group  # sums what each rank has scaled
            average(model.parameters(), None, scale=self.share.weight(count))

    def gate(self, name: str) -> None:
        """Rank 0 opens the gate by coming here; the others wait until it has. Once for each name."""
        if self.alone:
            return
        with _between_ranks("waiting for rank 0"):
            if self.first:
                self._store.add(name, 1)
                return
            self._wait(name, 1)

    def of_first(self, content: bytes) -> bytes:
        """Rank 0's `content` on every rank, however long the others wait for it."""
        if self.alone:
            return content
        self._shared += 1
        with _between_ranks("waiting for rank 0"):
            if self.first:
                self._store.set(_SHARED, content)
                self._store.add(f"{_SHARED}-{self._shared}", 1)
                return content
            self._wait(f"{_SHARED}-{self._shared}", 1)
            return bytes(self._store.get(_SHARED))

    def hand_in(self, content: bytes) -> None:
        """What this rank has for rank 0, which collects it."""
        self._collected += 1
        with _between_ranks("handing in what was found"):
            self._store.set(f"{_HANDED_IN}-of-{self.share.rank}", content)
            self._store.add(f"{_HANDED_IN}-{self._collected}", 1)

    def sign(self) -> None:
        """A sign of life for rank 0, which collects."""
        with _between_ranks("giving a sign of life"):
            self._store.add(_SIGNS, 1)

    def collect(self, on_sign: Callable[[], None] = lambda: None) -> list[bytes]:
        """What the other ranks have handed in, in their order, however slow one is. On rank 0, alone or not.

        Kept under the same names each time: the store forgets nothing. So the others wait at a gate before
        they hand in anew. A signal is seen while it waits. `on_sign` is called when another one gave a sign.
        """
        if self.alone:
            return []
        self._collected += 1
        with _between_ranks("waiting for what the others find"):
            self._wait(f"{_HANDED_IN}-{self._collected}", self.share.world - 1, on_sign)
            others = range(1, self.share.world)
            return [bytes(self._store.get(f"{_HANDED_IN}-of-{rank}")) for rank in others]

    def _wait(self, name: str, count: int, on_sign: Callable[[], None] = lambda: None) -> None:
        seen = self._store.add(_SIGNS, 0)
        while self._store.add(name, 0) < count:
            if (signs := self._store.add(_SIGNS, 0)) != seen:
                seen = signs
                on_sign()
            time.sleep(_GATE_POLL_S)

    def same(self, content: dict[str, Any] | None) -> dict[str, Any]:
        """Rank 0's `content` on every rank: JSON values, and numpy arrays at any depth."""
        with _between_ranks("sharing the checkpoint"):
            if self.first:
                assert content is not None
                plain, arrays = _unpacked(content)
                self._tell(json.dumps({"content": plain, "arrays": [_form(a) for a in arrays]}).encode())
                for array in arrays:
                    self._broadcast(array)
                return content
            header = json.loads(self._hear())
            received = [self._broadcast(np.empty(shape, kind)) for kind, shape in header["arrays"]]
        packed: dict[str, Any] = _packed(header["content"], received)
        return packed

    def agreed(self, number: int) -> int:
        """Rank 0's number on every rank."""
        if self.alone:
            return number
        return int(self.same({"number": number} if self.first else None)["number"])

    def _tell(self, text: bytes) -> None:
        self._broadcast(np.array([len(text)], np.int64))
        self._broadcast(np.frombuffer(text, np.uint8))

    def _hear(self) -> bytes:
        size = int(self._broadcast(np.zeros(1, np.int64))[0])
        return self._broadcast(np.zeros(size, np.uint8)).tobytes()

    def _broadcast(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rank 0's bytes in an array of the same form. Bytes, since not every type can be sent."""
        import paddle

        if not array.size:
            return array
        raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        tensor = paddle.to_tensor(raw)
        paddle.distributed.broadcast(tensor, 0)
        return np.frombuffer(tensor.numpy().tobytes(), array.dtype).reshape(array.shape).copy()


@contextlib.contextmanager
def _between_ranks(doing: str) -> Iterator[None]:
    """What Paddle raises when a peer is gone (RuntimeError of gloo, ValueError of its store), as PeerLost."""
    try:
        yield
    except RectrainError:
        raise
    except (RuntimeError, ValueError, OSError) as e:
        said = " ".join(str(e).split())[:300]
        raise PeerLost(f"Another rank of this run was lost while {doing} ({said}).") from e


def _form(array: np.ndarray[Any, Any]) -> list[Any]:
    return [array.dtype.str, list(array.shape)]


def _unpacked(node: Any) -> tuple[Any, list[np.ndarray[Any, Any]]]:
    """`node` with each array replaced by its number, and the arrays."""
    arrays: list[np.ndarray[Any, Any]] = []

    def walk(node: Any) -> Any:
        if isinstance(node, np.ndarray):
            arrays.append(node)
            return {"__array__": len(arrays) - 1}
        if isinstance(node, Mapping):
            return {str(key): walk(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [walk(value) for value in node]
        if isinstance(node, np.generic):
            return node.item()
        if node is None or isinstance(node, str | int | float | bool):
            return node
        raise InternalError(f"A {type(node).__name__} in a checkpoint can't be shared between ranks.")

    return walk(node), arrays


def _packed(node: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if isinstance(node, dict):
        if node.keys() == {"__array__"}:
            return arrays[node["__array__"]]
        return {key: _packed(value, arrays) for key, value in node.items()}
    return [_packed(value, arrays) for value in node] if isinstance(node, list) else node
