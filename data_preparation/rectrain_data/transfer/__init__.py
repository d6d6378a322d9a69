"""S3 transfer, in one place for all of RecTrain: `open_store(uri, S3Options.from_environment())`.

A folder of this machine (`file:///folder`) is a store too, with the same promises.
"""

from rectrain_data.transfer.files import Corrupt, Download, Upload, sha256_bytes, sha256_file
from rectrain_data.transfer.local import is_local, local_path, local_uri
from rectrain_data.transfer.opening import open_store
from rectrain_data.transfer.options import S3Options, StaticKeys
from rectrain_data.transfer.retries import Retries, RetryEvent
from rectrain_data.transfer.store import ObjectInfo, Store, split_uri

__all__ = [
    "Corrupt",
    "Download",
    "ObjectInfo",
    "Retries",
    "RetryEvent",
    "S3Options",
    "StaticKeys",
    "Store",
    "Upload",
    "is_local",
    "local_path",
    "local_uri",
    "open_store",
    "sha256_bytes",
    "sha256_file",
    "split_uri",
]
