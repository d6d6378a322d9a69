"""`python -m rectrain_trainer.reporting.vdl_process SCALARS TARGET`: VisualDL's own writer, alone.

Started by `vdl`. SCALARS has a JSON array a line: tag, step, value, time.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Write them."""
    source, target = map(Path, sys.argv[1:3])
    from visualdl import LogWriter

    with LogWriter(logdir=str(target.parent), file_name=target.name) as writer, source.open() as lines:
        for line in lines:
            tag, step, value, time = json.loads(line)
            writer.add_scalar(tag=tag, step=step, value=value, walltime=round(time * 1000))


if __name__ == "__main__":
    main()
