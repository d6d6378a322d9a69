"""What the first rank of a pod hands to the others there: the data that it staged and checked, the recipe.

Called by the run. A file in the pod's own work folder, written before the ranks meet and read after they
have: so it is of this round, and whole. It is never sent anywhere.
"""

import pickle
from pathlib import Path
from typing import Final

from rectrain_trainer.config import Recipe
from rectrain_trainer.stage import Staged

_NAME: Final = "handover.pickle"


def hand_over(work_dir: Path, recipe: Recipe, staged: Staged) -> None:
    """For the other ranks of this pod."""
    (work_dir / _NAME).write_bytes(pickle.dumps((recipe, staged)))


def take_over(work_dir: Path) -> tuple[Recipe, Staged]:
    """From the first rank of this pod."""
    recipe, staged = pickle.loads((work_dir / _NAME).read_bytes())  # noqa: S301 - of our own making
    return recipe, staged
