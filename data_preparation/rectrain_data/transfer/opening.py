"""The store behind a URI. Called by whoever has one."""

from rectrain_data.transfer.local import is_local, open_folder
from rectrain_data.transfer.options import S3Options
from rectrain_data.transfer.retries import Retries
from rectrain_data.transfer.store import Store, open_bucket


def open_store(uri: str, options: S3Options, retries: Retries | None = None) -> Store:
    """The store of `s3://bucket/prefix`, or of `file:///folder`. Sends no request yet.

    Raises:
        InvalidSpec: the URI or an option can't work.
        PermissionRefused: there are no keys.
    """
    if is_local(uri):
        return open_folder(uri, retries or Retries())
    return open_bucket(uri, options, retries or Retries())
