"""PaddleOCR 3.7's code base, as far as the package index has it: a PADDLEOCR_HOME for tests.

Its source distribution lacks `ppocr/modeling`, `losses`, `metrics` and `optimizer`; laid over a copy of
2.10's tree, it trains. What was made once is kept in the user's cache.
"""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

VERSION = "3.7.0"
_PINNED = Path(__file__).parents[1] / "data" / "paddleocr-3.7.txt"
_LMDB = '"""Stands in for a package that 3.7 imports at once and our tests don\'t use."""\n'
LIMIT_S = 180


def paddleocr_37(cache: Path) -> Path:
    """The tree, made if it isn't there. Skips the test where the package index can't be reached."""
    home = cache / f"paddleocr-{VERSION}-over-2.10.0"
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="paddleocr-") as scratch:
        made = _lay_over(_download(Path(scratch)), Path(scratch))
        try:
            made.rename(home)
        except OSError:  # another process was first
            assert home.is_dir()
    return home


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "-r", str(_PINNED), "-d", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        pytest.skip(f"PaddleOCR {VERSION} can't be had from the package index: {done.stderr.strip()[-300:]}")
    (archive,) = scratch.glob("*.tar.gz")
    return archive


def _lay_over(archive: Path, scratch: Path) -> Path:
    spec = importlib.util.find_spec("unstructured_paddleocr")
    assert spec is not None
    assert spec.origin is not None
    made = scratch / "home"
    shutil.copytree(Path(spec.origin).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "sdist", filter="data")
    (top,) = (scratch / "sdist").iterdir()
    for name in ("ppocr", "tools"):
        shutil.copytree(top / name, made / name, dirs_exist_ok=True)
    if importlib.util.find_spec("lmdb") is None:
        (made / "lmdb.py").write_text(_LMDB)
    return made
