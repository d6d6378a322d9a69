"""The `rectrain-trainer` command, also as `python -m rectrain_trainer`."""

import signal


def main() -> None:
    """Entry point: being told to stop while the imports take their time waits for the supervisor.

    As PID 1 of a pod it would be lost otherwise.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from rectrain_trainer import cli

    cli.main()


if __name__ == "__main__":
    main()
