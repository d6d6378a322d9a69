"""`rectrain-trainer` with several ranks in its pod, on CPUs: how many, then its own arguments."""

import sys
from functools import partial

from rectrain_trainer import cli

if __name__ == "__main__":
    cli.launch = partial(cli.launch, ranks_per_pod=int(sys.argv.pop(1)))  # type: ignore[attr-defined]
    cli.main()
