"""Two steps of a config's model on digits: `python -m tests.unit.trainer_learn.two_steps CONFIG FOLDER`.

Prints one JSON object: the code base that trained, and the losses. A process of its own, since a code base is
imported once.
"""

import json
import sys
from pathlib import Path

from rectrain_trainer import upstream
from rectrain_trainer.config import resolve
from rectrain_trainer.configs.named import find
from rectrain_trainer.device import configure_device
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.sources import StagedSource
from tests.unit.trainer_learn.digits import make_digits

SMALL = {
    "Architecture.Backbone.scale": "0.25",
    "Architecture.Head.head_list.1.NRTRHead.nrtr_dim": "32",
    "Architecture.Head.head_list.0.CTCHead.Neck.dims": "16",
    "Optimizer.lr.warmup_epoch": "0",
    "Train.sampler.scales": "[[96, 32], [96, 48]]",
    "Train.sampler.first_bs": "8",
    "Eval.dataset.transforms.2.RecResizeImg.image_shape": "[3, 48, 96]",
    "Global.epoch_num": "1",
}


def main(config: Path, folder: Path) -> None:
    """Train, and print."""
    configure_device(0, deterministic=True)
    found = find(str(config), SMALL)
    recipe = resolve(found.model, found.training(), "0123456789")
    source = StagedSource(make_digits(folder, 16), packed=False)
    with Loader(recipe, source) as loader:
        steps = list(train(TrainState.new(recipe, len(loader)), loader, fetch_every=1))
    losses = [row.loss for step in steps for row in step.losses]
    sys.stdout.write(json.dumps({"home": str(upstream.load().home), "losses": losses}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
