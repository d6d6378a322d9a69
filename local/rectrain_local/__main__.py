"""`python -m rectrain_local`: the same as the `rectrain-local` command."""

from rectrain_local.cli import main

if __name__ == "__main__":
    main()
