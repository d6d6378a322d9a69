"""A trainer with two loader workers that waits to be killed. Prints the workers' process ids."""

import sys
import time
from pathlib import Path

from rectrain_trainer.loader import Loader
from tests.unit.trainer_learn.recipes import loose, make_recipe

if __name__ == "__main__":
    loader = Loader(make_recipe(batch_size=2), loose(Path(sys.argv[1])), workers=2)
    batches = loader.batches(0)
    next(batches)
    assert loader._pool
    print(*[process.pid for process in loader._pool._processes], flush=True)
    time.sleep(600)
