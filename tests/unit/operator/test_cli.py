"""`rectrain-operator`: what it prints, and what it says when it can't start."""

import base64
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rectrain_api.errors import UsageError
from rectrain_local.ports import free_ports
from rectrain_operator.cli import port_of


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, "-m", "rectrain_operator", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_manifests_are_minimal() -> None:
    documents = list(yaml.safe_load_all(command("manifests").stdout))
    (role,) = [d for d in documents if d["kind"] == "ClusterRole"]
    rights = {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert not {r for r, _ in rights} & {"secrets", "*"}
    assert not {v for _, v in rights} & {"delete", "deletecollection", "*", "escalate", "impersonate"}
    assert ("tokenreviews", "create") in rights


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "127.0.0.1:1",
        "https://",
        "https://[::1",
        "https://host:0",
        "https://host:99999",
        "https://host:port",
        "https://host:1/path",
        "https://host:1?query",
        "https://user:password@host:1",
        "https://\u0e44\u0e17\u0e22:1",
    ],
)
def test_a_report_url_that_cannot_work(url: str) -> None:
    with pytest.raises(UsageError, match="must look like https://host:port"):
        port_of(url)


@pytest.mark.parametrize(
    ("url", "port"), [("https://host", 443), ("https://host:8443/", 8443), ("https://[::1]:9", 9)]
)
def test_a_report_url_has_a_port(url: str, port: int) -> None:
    assert port_of(url) == port


def test_a_wrong_report_url_is_told(tmp_path: Path) -> None:
    done = command("run", "--report-url", "http://127.0.0.1:1", "--state-dir", str(tmp_path))
    assert done.returncode == 64
    assert "must look like https://host:port" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_way_to_sign_in(tmp_path: Path) -> None:
    done = command(
        "run", "--report-url", f"https://127.0.0.1:{free_ports(1)[0]}", "--state-dir", str(tmp_path)
    )
    assert done.returncode == 64
    assert "--kubeconfig FILE" in done.stderr
    broken = tmp_path / "kubeconfig"
    broken.write_text("apiVersion: v1\nkind: Config\n")
    done = command(
        "run",
        "--report-url",
        f"https://127.0.0.1:{free_ports(1)[0]}",
        "--state-dir",
        str(tmp_path),
        "--kubeconfig",
        str(broken),
    )
    assert done.returncode == 64
    assert str(broken) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["a: [b", "hello", "[]", "clusters: 3"])
def test_what_is_no_kubeconfig(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "kubeconfig"
    broken.write_text(content)
    url = f"https://127.0.0.1:{free_ports(1)[0]}"
    done = command(
        "run", "--report-url", url, "--state-dir", str(tmp_path / "state"), "--kubeconfig", str(broken)
    )
    assert done.returncode == 78
    assert f"{broken} isn't a kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("secret", ["", "name", "space/", "space/Name", "a/b/c", "Space/name"])
def test_a_secret_that_cannot_be_named(secret: str) -> None:
    done = command("run", "--report-url", "https://host:1", "--certificate-secret", secret)
    assert done.returncode == 64
    assert f'--certificate-secret "{secret}" must look like NAMESPACE/NAME' in done.stderr


def test_a_wrong_command_line() -> None:
    assert command("run", "--nosuch").returncode == 64
    assert command("--help").returncode == 0


@pytest.mark.parametrize("name", ["", "Bad_Name", "../pods", "a" * 64])
def test_a_name_that_no_namespace_has(name: str) -> None:
    done = command("run", "--report-url", "https://127.0.0.1:1", "-n", name)
    assert done.returncode == 64
    assert f'--namespace "{name}"' in done.stderr


def test_a_key_that_is_none(tmp_path: Path) -> None:
    junk = base64.b64encode(b"junk").decode()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"client-certificate-data": junk, "client-key-data": junk}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    done = command("run", "--report-url", "https://127.0.0.1:1", "--kubeconfig", str(path))
    assert done.returncode == 78, done.stderr
    assert f"The certificate or key of {path} can't be used" in done.stderr
    assert "Traceback" not in done.stderr
