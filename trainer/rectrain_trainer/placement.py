"""Where a rank stands among all: what its supervisor puts into its environment, for Paddle and for us. Pure.

Called by `gang`. Names are Paddle's own, as its launcher has them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rectrain_trainer.environment import IN_POD, PEERS, RANK, WORLD
from rectrain_trainer.interfaces import interface_of
from rectrain_trainer.meeting import Seat

NCCL_INTERFACE: Final = "NCCL_SOCKET_IFNAME"
GLOO_INTERFACE: Final = "GLOO_SOCKET_IFNAME"
GLOO: Final = "gloo"
NCCL: Final = "nccl"
_STORE_WAIT_S: Final = 7 * 24 * 3600


@dataclass(frozen=True)
class Placement:
    """The ranks of a round."""

    seat: Seat
    in_pod: int
    """Ranks in each pod."""
    backend: str
    store: str
    """`address:port` of the store by which they find each other."""

    def environment(self, rank: int, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """For the process of `rank`. What stands in `env` already (os.environ) may be the user's wish."""
        env = os.environ if env is None else env
        world, local = self.seat.pods * self.in_pod, rank % self.in_pod
        # Names for Paddle's own bookkeeping: nobody listens there, but each has to be another one.
        endpoints = [
            f"{self.seat.names[one // self.in_pod]}:{self.seat.port + one % self.in_pod}"
            for one in range(world)
        ]
        found = {
            RANK: str(rank),
            WORLD: str(world),
            IN_POD: str(self.in_pod),
            "PADDLE_LOCAL_RANK": str(local),
            PEERS: ",".join(self.seat.names),
            "MASTER_ADDR": "",  # would win over the next one
            "PADDLE_MASTER": self.store,
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
            "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
            "PADDLE_DISTRI_BACKEND": self.backend,
            # Of the devices that the pod sees; all stay visible, for NCCL to go from one to the other.
            "FLAGS_selected_gpus": str(local),
            # How long its store is waited for; staging may take long, and we end it when a pod is lost.
            "FLAGS_stop_check_timeout": str(_STORE_WAIT_S),
        }
        if interface := interface_of(self.seat.address):
            ours = NCCL_INTERFACE if self.backend == NCCL else GLOO_INTERFACE
            found |= {} if env.get(ours) else {ours: interface}
        return found
