"""Messages in the user's words: what was staged to this disk is named by its place in S3.

Used by the stages that read staged files; the readers themselves know paths only.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rectrain_api.errors import DatasetInvalid, InputMissing


class UriMap:
    """Folders and the places that they were staged from."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def add(self, folder: Path, uri: str) -> None:
        """`folder` is a copy of `uri`."""
        self._places[str(folder)] = uri

    def translate(self, text: str) -> str:
        """Replace paths by places."""
        for folder, uri in self._places.items():
            text = text.replace(folder, uri)
        return text

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """Errors about the data come out with places in S3."""
        try:
            yield
        except (DatasetInvalid, InputMissing) as e:
            said = str(e)
            if (better := self.translate(said)) != said:
                raise type(e)(better) from e
            raise
