"""Free TCP ports on the loopback address, for the servers of a cluster.

Taken from below the kernel's range for outgoing connections, so that no client of anybody gets the port
between our look and the server's bind. What remains of that race is met by starting again
(`errors.PortTaken`).
"""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
LOWEST, HIGHEST = 18000, 32000


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on."""
    chooser = random.SystemRandom()
    found: list[int] = []
    for _ in range(1000 * count):
        port = chooser.randrange(LOWEST, HIGHEST)
        if port not in found and _is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports between {LOWEST} and {HIGHEST} on {LOOPBACK}")
