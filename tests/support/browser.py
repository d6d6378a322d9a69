"""A Chromium for the tests of pages: the machine's own, else the distribution's package, else Playwright's.

`python -m tests.support.browser` gets one where there is none (`make test` does); `browser` starts it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES: Final = ("chromium", "fonts-noto-core")
"""Debian's; the fonts have Thai and Arabic."""


def own() -> str | None:
    """The machine's."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless one."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=own(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def _playwrights() -> bool:
    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path).exists()


def main() -> None:
    """Get one, if there is none."""
    if own() or _playwrights():
        return
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        print("==> Chromium, for the tests of pages (about a minute the first time)")
        quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
        subprocess.run([apt, "update", "-qq"], check=True, **quiet)
        install = [apt, "install", "--yes", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(install, check=True, **quiet)
        return
    got = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if got.returncode:
        sys.exit("The tests of pages need a Chromium: install the distribution's package chromium.")


if __name__ == "__main__":
    main()
