"""`rectrain-trainer` with several ranks in its pod, on CPUs: how many, then its own arguments."""

import signal
import sys
from functools import partial


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # as the command itself
    from rectrain_trainer import cli

    cli.launch = partial(cli.launch, ranks_per_pod=int(sys.argv.pop(1)))  # type: ignore[attr-defined]
    cli.main()


if __name__ == "__main__":
    main()
