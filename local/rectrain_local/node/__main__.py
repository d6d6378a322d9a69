"""`python -m rectrain_local.node CONFIG.json`: how `rectrain-local` starts a node. Logs go to stderr."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from pydantic import ValidationError

from rectrain_local.errors import EX_USAGE, LocalError

from .agent import run
from .config import NodeConfig

EX_CONFIG = 78


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m rectrain_local.node CONFIG.json", file=sys.stderr)  # noqa: T201
        return EX_USAGE
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = NodeConfig.model_validate_json(Path(arguments[0]).read_text())
    except (OSError, ValidationError) as wrong:
        print(f"{arguments[0]} is not a node's configuration: {wrong}", file=sys.stderr)  # noqa: T201
        return EX_CONFIG
    try:
        # In the main thread, which ends last: every sandbox dies with the thread that started it.
        asyncio.run(run(config))
    except LocalError as failed:
        print(failed, file=sys.stderr)  # noqa: T201
        return failed.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
