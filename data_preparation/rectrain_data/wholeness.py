"""Folders that appear whole or not at all. Used by everything here that writes a set to the disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rectrain_api.errors import UsageError
from rectrain_data.transfer.files import local_error


def refuse_existing(target: Path) -> None:
    """Raises UsageError unless the target is free: a link isn't, for no folder can replace it."""
    try:
        taken = target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir())))
    except OSError as exc:
        raise local_error(exc, target) from exc
    if taken:
        raise UsageError(f"{target} exists and isn't an empty folder: choose another, or remove it.")


def put_in_place(part: Path, target: Path) -> None:
    """Rename a finished folder. Raises UsageError if another command was quicker, OSError."""
    try:
        part.replace(target)
    except OSError:
        refuse_existing(target)
        raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that becomes it at the end; after an error or Ctrl-C it is removed.

    Raises:
        UsageError: the target exists and isn't an empty folder.
        PermissionRefused, DiskTooSmall, InputMissing: the disk.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        refuse_existing(target)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        put_in_place(part, target)
    except OSError as exc:
        raise local_error(exc, target) from exc
    finally:
        shutil.rmtree(part, ignore_errors=True)
