"""The `rectrain-data` command, also as `python -m rectrain_data`."""

import signal


def main() -> None:
    """Entry point: while the imports take their time, Ctrl-C ends the command without a traceback."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.SIG_IGN:  # nohup stays nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rectrain_data import cli

    signal.signal(signal.SIGINT, usual)
    cli.main()


if __name__ == "__main__":
    main()
