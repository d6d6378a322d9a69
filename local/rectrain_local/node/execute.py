"""A command inside a running sandbox, by way of the script `enter`. Called by `probes`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("enter.py")
OUTPUT_BYTES: Final = 10 * 1024


async def exec_in(pid: int, work_dir: str, command: list[str], timeout_s: float) -> tuple[int, str]:
    """Exit code and output of a command in the sandbox whose first process is `pid`. Raises TimeoutError."""
    script = [sys.executable, "-I", "-S", str(SCRIPT), str(pid), work_dir, *command]
    process = await asyncio.create_subprocess_exec(
        *script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output[:OUTPUT_BYTES].decode("utf-8", "replace")
