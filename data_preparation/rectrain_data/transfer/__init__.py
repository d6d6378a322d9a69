"""S3 transfer, in one place for all of RecTrain: `open_store(uri, S3Options.from_environment())`."""

from rectrain_data.transfer.files import Corrupt, Download, Upload, sha256_bytes, sha256_file
from rectrain_data.transfer.options import S3Options, StaticKeys
from rectrain_data.transfer.retries import Retries, RetryEvent
from rectrain_data.transfer.store import ObjectInfo, Store, open_store, split_uri

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
    "open_store",
    "sha256_bytes",
    "sha256_file",
    "split_uri",
]
