"""How far a run is to go, and its good ends. Given by `run` and `follow`, told by the child."""

from dataclasses import dataclass
from typing import Literal

Until = Literal["looked", "checked", "end"]
"""A look at its place in S3; all that comes before the attempt is taken; everything."""


@dataclass(frozen=True)
class Outcome:
    """A good end."""

    reason: str
    message: str
