"""What an image installs beside RecTrain: `python3 images/requirements.py EXTRA`, one requirement a line.

Read from pyproject.toml alone, so that a change of our source doesn't install everything again. Standard
library only: it runs before anything is installed.
"""

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def requirements(extra: str) -> list[str]:
    """The project's own, and an extra's; `rectrain[other]` stands for another extra."""
    found = list(PROJECT["dependencies"])
    for wanted in PROJECT["optional-dependencies"][extra]:
        if wanted.startswith(f"{PROJECT['name']}["):
            names = wanted.partition("[")[2].rstrip("]").split(",")
            found += [one for name in names for one in requirements(name)]
        else:
            found.append(wanted)
    return sorted(set(found))


if __name__ == "__main__":
    sys.stdout.write("".join(f"{one}\n" for one in requirements(sys.argv[1])))
