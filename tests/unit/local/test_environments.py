"""An image name stands for an environment: what a sandbox needs of it, and nothing of home besides."""

import sys
import venv
from pathlib import Path

import pytest

from rectrain_local.environments import ANY_IMAGE, describe, parse_images
from rectrain_local.errors import UsageError


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("env") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    return folder


def test_editable_installs_are_seen_too(environment: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    source.mkdir()
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "editable.pth").write_text(f"import this\n{source}\n{tmp_path / 'gone'}\n")
    paths = describe(environment)["read_only_paths"]
    assert {str(environment), str(source)} <= set(paths)
    assert str(tmp_path / "gone") not in paths
    assert str(Path.home()) not in paths


def test_its_programs_come_first_on_path(environment: Path) -> None:
    assert describe(environment)["path"].startswith(f"{environment / 'bin'}:")


def test_nothing_is_named_twice_nor_what_is_always_there(environment: Path) -> None:
    paths = [Path(p) for p in describe(environment)["read_only_paths"]]
    assert not any(p.is_relative_to("/usr") for p in paths)
    assert not any(a != b and a.is_relative_to(b) for a in paths for b in paths)


def test_without_options_every_image_is_the_running_environment() -> None:
    assert parse_images([]) == {ANY_IMAGE: Path(sys.prefix)}


def test_names_may_hold_tags_and_registries(environment: Path) -> None:
    name = "registry.example:5000/team/trainer:v1"
    assert parse_images([f"{name}={environment}"]) == {name: environment}


@pytest.mark.parametrize("option", ["trainer", "=/usr", "trainer=/nowhere"])
def test_a_wrong_option_is_explained(option: str) -> None:
    with pytest.raises(UsageError, match="--image"):
        parse_images([option])
