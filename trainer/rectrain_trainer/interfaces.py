"""Which of this machine's network interfaces leads somewhere. Called by `gang` and by the pre-flight."""

import contextlib
import fcntl
import socket
import struct
from typing import Final

_SIOCGIFADDR: Final = 0x8915
_NAME_LIMIT: Final = 15


def interface_of(address: str) -> str | None:
    """Name of the interface with this IPv4 address, if there is one; 127.0.0.0/8 is the loopback's."""
    loopback = address.startswith("127.")
    for _, name in socket.if_nameindex():
        its = _address_of(name)
        if its == address or (loopback and its is not None and its.startswith("127.")):
            return name
    return None


def local_address(peer: str) -> str | None:
    """This machine's own address on the way to `peer` (a name or an address): nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        return str(probe.getsockname()[0])
    return None


def _address_of(name: str) -> str | None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        wanted = struct.pack("256s", name.encode()[:_NAME_LIMIT])
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, wanted)[20:24])
    return None
