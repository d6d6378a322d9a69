"""Imported once by the loader's fork server, so that each worker starts with upstream's code in memory."""

import os

from rectrain_trainer import loader, upstream

os.environ["OMP_NUM_THREADS"] = "1"  # workers run no network, and Paddle warns of any other number
upstream.load()

__all__ = ["loader"]
