"""`python -m rectrain_local.assets TOOL`: runs the cached one with the arguments, or says what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

from rectrain_local.assets.cache import Cache


def run(cache: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rectrain_local.assets", *argv],
        env={"PATH": os.environ["PATH"], "HOME": str(cache), "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_cached_one_is_run_with_its_arguments_and_status(tmp_path: Path) -> None:
    program = Cache(tmp_path / "rectrain").place("actionlint")
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "checks $*"\nexit 3\n')
    program.chmod(0o755)
    done = run(tmp_path, "actionlint", "a.yaml", "b.yaml")
    assert (done.returncode, done.stdout) == (3, "checks a.yaml b.yaml\n")


def test_an_unknown_one_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "kubectl")
    assert done.returncode == 64
    assert "actionlint" in done.stderr
