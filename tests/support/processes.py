"""Looking at processes from outside, as the kernel sees them."""

from pathlib import Path

from tests.support.waiting import wait_until


def _listening(pids: set[int]) -> set[str]:
    """`ADDRESS:PORT` (hex, as the kernel prints them) on which these processes accept connections."""
    sockets = {str(f.readlink()) for pid in pids for f in Path(f"/proc/{pid}/fd").iterdir() if f.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found


def listening_addresses(pids: set[int]) -> set[str]:
    """Addresses (hex) on which these processes accept connections; 127.0.0.1 is 0100007F."""
    return {place.split(":")[0] for place in _listening(pids)}


def listening_ports(pids: set[int]) -> set[int]:
    """Ports on which these processes accept connections."""
    return {int(place.split(":")[1], 16) for place in _listening(pids)}


def first_child(pid: int) -> int:
    """The process that another one started first, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: children.read_text().split(), 20, "no child")
    return int(children.read_text().split()[0])


def mentioning(text: str) -> dict[int, str]:
    """Live processes (no zombies) whose command line or environment holds `text`: PID and command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in command + environ:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
