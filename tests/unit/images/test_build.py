"""`images/build`: which builder it takes, and what it tells it. The builders are fakes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rectrain_api import VERSION

SCRIPT = Path(__file__).resolve().parents[3] / "images" / "build"
BUILDER = """#!/bin/sh
if [ "$1" = info ]; then exit {info}; fi
echo "{name} $*" >> "{calls}"
exit {builds}
"""


class Machine:
    """A PATH that holds the builders given, and what the script itself needs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bin"
        self._path.mkdir()
        self._calls = folder / "calls"
        for tool in ("bash", "dirname", "sed"):
            (self._path / tool).symlink_to(str(shutil.which(tool)))

    def has(self, name: str, *, works: bool = True, builds: int = 0) -> None:
        """A builder that answers or not, and whose builds end with a status."""
        program = self._path / name
        program.write_text(BUILDER.format(name=name, info=int(not works), calls=self._calls, builds=builds))
        program.chmod(0o755)

    def build(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._path / "bash", SCRIPT, *argv],
            env={"PATH": str(self._path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_both_images_by_the_first_builder(machine: Machine) -> None:
    for name in ("docker", "podman", "buildah"):
        machine.has(name)
    assert machine.build().returncode == 0
    given = f"--build-arg VERSION={VERSION}"
    assert machine.calls() == [
        f"docker build {given} -t rectrain-operator:{VERSION} -f operator/Dockerfile .",
        f"docker build --target cpu {given} -t rectrain-trainer:{VERSION} -f trainer/Dockerfile .",
    ]


def test_a_client_without_its_daemon_is_passed_over(machine: Machine) -> None:
    machine.has("docker", works=False)
    machine.has("buildah")
    done = machine.build("operator")
    assert done.returncode == 0, done.stderr
    (call,) = machine.calls()
    assert call.startswith("buildah build ")


def test_what_does_not_work_is_named(machine: Machine) -> None:
    machine.has("docker", works=False)
    machine.has("podman", works=False)
    done = machine.build()
    assert done.returncode == 69
    assert "docker podman" in done.stderr
    assert machine.calls() == []


def test_without_a_builder_it_says_what_it_needs(machine: Machine) -> None:
    done = machine.build()
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == "Building images needs docker, podman or buildah: install one of them.\n"


def test_the_image_for_gpus_and_options_of_the_builder(machine: Machine) -> None:
    machine.has("podman")
    done = machine.build("trainer-gpu", "--", "--build-arg", "BASE=registry.example/python:3.11-slim")
    assert done.returncode == 0, done.stderr
    assert machine.calls() == [
        f"podman build --target gpu --build-arg VERSION={VERSION} "
        "--build-arg BASE=registry.example/python:3.11-slim "
        f"-t rectrain-trainer:{VERSION}-gpu -f trainer/Dockerfile ."
    ]


def test_an_unknown_image_is_refused_before_anything_is_built(machine: Machine) -> None:
    machine.has("docker")
    done = machine.build("operator", "trainer_gpu")
    assert done.returncode == 64
    assert "trainer_gpu" in done.stderr
    assert machine.calls() == []


def test_a_failed_build_ends_it(machine: Machine) -> None:
    machine.has("docker", builds=3)
    assert machine.build().returncode == 3
    assert len(machine.calls()) == 1
