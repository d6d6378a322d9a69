"""What of a config isn't used, or is replaced."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Note:
    """One key of a config that doesn't decide what its author may think."""

    key: str
    what: Literal["Replaced", "Unused"]
    why: str
    """By what, or for what reason."""

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.key} is replaced by {self.why}"
            if self.what == "Replaced"
            else f"{self.key} isn't used: {self.why}"
        )

    def to_dict(self) -> dict[str, str]:
        """Plain JSON types."""
        return {"key": self.key, "what": self.what, "why": self.why}
