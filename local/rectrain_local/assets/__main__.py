"""Runs one of our tools: `python -m rectrain_local.assets actionlint [ARG…]`. Called by `make check`.

The pinned version, whatever PATH holds, so that all machines say the same; built when it is first asked for.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from rectrain_local.assets.cache import Cache, cache_root
from rectrain_local.assets.gobuild import GoBuild
from rectrain_local.assets.resolve import resolve_tool
from rectrain_local.assets.versions import TOOLS
from rectrain_local.errors import EX_USAGE, LocalError
from rectrain_local.progress import Progress


def main(argv: list[str]) -> NoReturn:
    """Become the tool, or end with a sentence if it can't be had."""
    if not argv or argv[0] not in TOOLS:
        print(f"Name one of these tools: {', '.join(TOOLS)}.", file=sys.stderr)  # noqa: T201
        sys.exit(EX_USAGE)
    try:
        program = resolve_tool(argv[0], Cache(cache_root()), [GoBuild()], Progress())
    except LocalError as refused:
        print(refused, file=sys.stderr)  # noqa: T201
        sys.exit(refused.exit_code)
    os.execv(program, argv)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
