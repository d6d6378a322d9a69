"""bubblewrap's arguments, the choice of an environment, and what a configuration may not say."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from rectrain_local.node.config import Environment, NodeConfig
from rectrain_local.node.environments import choose, unknown_image
from rectrain_local.node.sandbox import HostRoot, Mount, SandboxSpec, host_root, options

SPEC = SandboxSpec(
    command=["true"],
    env={"A": "b c"},
    uid=1000,
    gid=1001,
    hostname="host",
    work_dir="/made",
    environment_paths=["/opt/venv"],
    mounts=[
        Mount("/data/inner", Path("/s/inner"), read_only=True),
        Mount("/data", Path("/s/data")),
        Mount("/dev/shm", None, size_bytes=4096),
    ],
    files={"/etc/hosts": Path("/s/hosts")},
    tmp=Path("/s/tmp"),
    termination_file=Path("/s/termination"),
    termination_path="/dev/termination-log",
)
ROOT = HostRoot({"/bin": "usr/bin"}, ["/usr", "/etc/ld.so.cache"])


def has(words: list[str], *run: str) -> int:
    """Where the words appear in this order; fails if they don't."""
    found = [i for i in range(len(words)) if tuple(words[i : i + len(run)]) == run]
    assert found, f"{run} not in {words}"
    return found[0]


def test_the_whole_order() -> None:
    words = options(SPEC, ROOT)
    for run in (
        ("--unshare-user", "--unshare-pid"),
        ("--uid", "1000", "--gid", "1001", "--cap-drop", "ALL"),
        ("--hostname", "host"),
        ("--as-pid-1", "--die-with-parent"),
        ("--symlink", "usr/bin", "/bin"),
        ("--ro-bind", "/opt/venv", "/opt/venv"),
        ("--ro-bind", "/s/hosts", "/etc/hosts"),
        ("--setenv", "A", "b c"),
        ("--chdir", "/made"),
    ):
        has(words, *run)
    dev = has(words, "--dev", "/dev")
    memory = has(words, "--size", "4096", "--tmpfs", "/dev/shm")
    outer = has(words, "--bind", "/s/data", "/data")
    inner = has(words, "--ro-bind", "/s/inner", "/data/inner")
    made = has(words, "--dir", "/made")
    locked = has(words, "--remount-ro", "/dev", "--remount-ro", "/")
    assert dev < memory < locked
    assert outer < inner < locked
    assert made < locked
    assert "--clearenv" in words


def test_a_read_only_root_has_no_writable_tmp() -> None:
    assert "/s/tmp" in options(SPEC, ROOT)
    assert "/s/tmp" not in options(replace(SPEC, tmp=None), ROOT)


@pytest.mark.parametrize("work_dir", ["/", "/data/sub", "/opt/venv/x", "/usr/share"])
def test_a_working_directory_in_something_mounted_is_not_made(work_dir: str) -> None:
    words = options(replace(SPEC, work_dir=work_dir), ROOT)
    assert ("--dir", work_dir) not in list(pairwise(words))


def test_the_hosts_root_is_looked_at_and_holds_no_secret(tmp_path: Path) -> None:
    for folder in ("usr/bin", "usr/lib", "lib64", "etc/ssl/certs", "etc/ssl/private"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "etc/shadow").touch()
    found = host_root(tmp_path)
    assert found.links == {"/bin": "usr/bin"}
    assert found.binds == ["/usr", "/lib64", "/etc/ssl/certs"]


def test_the_first_matching_pattern_counts() -> None:
    one, rest = Environment(path="/one"), Environment(path="/rest")
    known = {"trainer:*": one, "*": rest}
    assert choose("trainer:v1", known) == ("trainer:*", one)
    assert choose("other", known) == ("*", rest)
    assert choose("other", {"trainer:*": one}) is None
    assert "trainer:*" in unknown_image("other", {"trainer:*": one})


def config(**more: object) -> dict[str, object]:
    files = ("ca", "client_cert", "client_key", "serving_cert", "serving_key", "kubelet_client_ca")
    given: dict[str, object] = {f"{name}_file": "/x" for name in files}
    given |= {"name": "n", "server": "https://127.0.0.1:1", "kubelet_client_name": "api"}
    return given | {"reader_kubeconfig": "/x", "state_dir": "/state/n", "environments": {}} | more


@pytest.mark.parametrize("path", ["/", "/state", "/state/n", "relative"])
def test_an_environment_may_not_show_the_state(path: str) -> None:
    assert NodeConfig.model_validate(config()).listen_host == "127.0.0.1"
    with pytest.raises(ValidationError, match=r"state directory|absolute"):
        NodeConfig.model_validate(config(environments={"*": {"read_only_paths": [path]}}))


def test_an_environment_below_a_volume_is_still_there() -> None:
    """A checkout in /tmp: the pod's own /tmp would hide its programs."""
    spec = replace(
        SPEC,
        environment_paths=["/opt/venv", "/tmp/checkout/.venv"],
        mounts=[Mount("/tmp", Path("/s/pod-tmp"))],
    )
    words = options(spec, ROOT)
    volume = has(words, "--bind", "/s/pod-tmp", "/tmp")
    last = len(words) - 1 - words[::-1].index("/tmp/checkout/.venv")
    assert last > volume
    assert words.count("/opt/venv") == 2, "what nothing hides is bound once"
