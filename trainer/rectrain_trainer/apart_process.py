"""The other end of `apart`: imports what work needs, does one piece of it, and says how it went.

    python -m rectrain_trainer.apart_process --parent PID --gpus N

The work comes pickled on stdin, from the process that started this one; the answer is one line of JSON on
stdout. Nothing else goes there: Paddle and upstream print what they like on stderr.
"""

import argparse
import json
import os
import pickle
import sys
import warnings
from typing import Any, NoReturn

from rectrain_trainer.die_with import die_with


def main() -> NoReturn:
    """Answer and leave, without the interpreter's own end (Paddle's may crash or hang)."""
    arguments = _parse()
    die_with(arguments.parent)
    answer_to = os.dup(1)
    os.dup2(2, 1)
    warnings.filterwarnings("ignore", category=UserWarning, module="paddle")
    answer = _answer(arguments.gpus, arguments.deterministic)
    with os.fdopen(answer_to, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)


def _answer(gpus: int, deterministic: bool) -> dict[str, Any]:
    try:
        _get_ready(gpus, deterministic)
        work = sys.stdin.buffer.read()
        if not work:
            os._exit(0)  # nothing is wanted any more
        return {"result": pickle.loads(work)()}  # noqa: S301 - of our own making
    except Exception as failed:
        import traceback

        traceback.print_exc()
        kind = "MemoryError" if isinstance(failed, MemoryError) else type(failed).__name__
        return {"error": kind, "said": str(failed)}


def _get_ready(gpus: int, deterministic: bool) -> None:
    """Everything that takes time and needs no recipe.

    One product of matrices has Paddle load its library for them, which for a moment claims 110 MB of address
    space and takes no memory: under a limit of memory that would be counted.
    """
    from rectrain_trainer.device import configure_device

    configure_device(gpus, deterministic=deterministic)
    import paddle

    ops: Any = paddle
    from rectrain_trainer import loop, upstream

    assert loop
    upstream.load()
    ones = ops.ones([2, 2])
    ops.matmul(ones, ones).numpy()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rectrain_trainer.apart_process")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--deterministic", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
