"""Several ranks are one run: two processes train as one with twice the batch, and a silent one is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer_learn.test_ranks import ranks_run

TRAINS = """
import dataclasses, json, sys
from pathlib import Path
import numpy as np
from rectrain_trainer.device import configure_device
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.ranks import Ranks
from tests.unit.trainer_learn.recipes import loose, make_recipe

configure_device(0, deterministic=True)
overrides = {"Architecture.Backbone.drop_path_rate": "0", "Architecture.Backbone.last_drop": "0"}
recipe = make_recipe(epochs=3, batch_size=int(sys.argv[2]), overrides=overrides)
rates = {"name": "Cosine", "learning_rate": 0.01, "warmup_epoch": 0}
recipe = dataclasses.replace(recipe, optimizer={"name": "Momentum", "momentum": 0.9, "lr": rates})
ranks = Ranks.from_environment()
ranks.open()
loader = Loader(recipe, loose(Path(sys.argv[1])), share=ranks.share)
state = TrainState.new(recipe, len(loader), ranks)
for layer in state.learner.model.sublayers():
    if hasattr(layer, "_use_global_stats"):
        layer._use_global_stats = True
losses = [
    [row.loss, ranks.share.weight(step.samples)]
    for step in train(state, loader, fetch_every=1) for row in step.losses
]
weights = {name: tensor.numpy() for name, tensor in state.learner.model.state_dict().items()}
np.savez(sys.argv[3] + f"-{ranks.share.rank}.npz", **weights)
print(json.dumps(losses), flush=True)
ranks.gate("done")
"""
TOLERANCE = 1e-5
"""Of losses relative, of weights (up to 1.1) absolute: single-precision sums in another order, over 12 steps.
Measured: 2e-6 and 6e-7."""


def trained(digits: Path, batch_size: int, world: int, out: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The loss of each step over all ranks, and each rank's weights after the last one."""
    losses = []
    for process in ranks_run(TRAINS, str(digits), str(batch_size), str(out), world=world):
        said, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        losses.append(np.array(json.loads(said.splitlines()[-1])))
    weights = [dict(np.load(f"{out}-{rank}.npz")) for rank in range(world)]
    return sum(rows[:, 0] * rows[:, 1] for rows in losses), weights


def test_two_ranks_train_what_one_does_with_twice_the_batch(digits: Path, tmp_path: Path) -> None:
    """3 epochs of 50 samples in steps of 16, the last of 2.

    Batch norm takes its running statistics here: as upstream's isn't synced, each rank would normalise by its
    own half of the batch, which is another model than one of the whole (losses then differ by 12 %, weights
    by 0.25). Without dropout, which each rank draws for itself. Momentum, not Adam: that makes a full step of
    a gradient that is nothing but rounding.
    """
    one_loss, (one,) = trained(digits, 16, 1, tmp_path / "one")
    two_loss, (first, second) = trained(digits, 8, 2, tmp_path / "two")
    assert len(one_loss) == 12
    assert one_loss[-1] < one_loss[0], "it learns"
    np.testing.assert_allclose(two_loss, one_loss, rtol=TOLERANCE)
    for name, array in one.items():
        np.testing.assert_allclose(first[name], array, rtol=0, atol=TOLERANCE, err_msg=name)
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


SILENT = """
import os, signal, sys, time
import paddle
from rectrain_api.errors import PeerLost
from rectrain_api.exit_codes import outcome_of
from rectrain_trainer import preflight
from rectrain_trainer.ranks import Ranks

preflight.LIMIT_S, preflight.NOTES_S = 3.0, 2.0
ranks = Ranks.from_environment()
if ranks.share.rank == int(sys.argv[1]):
    notes = ranks._meet()
    while not notes.silent(ranks.share.rank)[1]:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSTOP)
try:
    ranks.open()
except PeerLost as e:
    print(outcome_of(e).exit_code, e, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("silent", [0, 1])
def test_who_meets_the_others_and_then_is_silent_is_named(silent: int) -> None:
    """Rank 0 holds the store as well: then nobody can say who has answered."""
    processes = ranks_run(SILENT, str(silent), RECTRAIN_PEERS="127.0.0.1,127.0.0.2", GLOO_SOCKET_IFNAME="lo")
    try:
        said, errors = processes[1 - silent].communicate(timeout=120)
    finally:
        processes[silent].kill()
        processes[silent].communicate()
    assert said.splitlines()[-1] == (
        f"69 Before training, an all-reduce got no answer within 3 s: rank {silent} (127.0.0.{silent + 1}) "
        f"takes no part. Rank {1 - silent} uses the interface lo (127.0.0.1); see whether the processes "
        "there hang, and whether that interface leads there (NCCL_SOCKET_IFNAME names another)."
    ), errors
