"""What a rank takes of each step, and what ranks share."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectrain_trainer import ranks as ranks_module
from rectrain_trainer.environment import RANK, WORLD
from rectrain_trainer.figures import Found
from rectrain_trainer.meeting import free_port
from rectrain_trainer.ranks import Ranks, Share, _packed, _unpacked


@given(st.integers(1, 200), st.integers(1, 9))
def test_every_sample_of_a_step_is_exactly_one_ranks(count: int, world: int) -> None:
    positions = list(range(100, 100 + count))
    shares = [Share(rank, world) for rank in range(world)]
    weighed = [(s.of(positions), s.weight(count)) for s in shares]
    seen = [p for mine, weight in weighed for p in mine if weight]
    assert seen == positions
    assert sum(weight for _, weight in weighed) == pytest.approx(1)
    assert all(mine for mine, _ in weighed), "each takes part"
    for mine, weight in weighed:
        assert weight == (pytest.approx(len(mine) / count) if weight else 0)


def test_one_rank_takes_all() -> None:
    assert Share().of([3, 1, 2]) == [3, 1, 2]
    assert Share().weight(3) == 1


def test_arrays_travel_as_they_are() -> None:
    content = {
        "params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4), np.int64)},
        "optimizer": {"LR_Scheduler": {"last_epoch": 7, "last_lr": 0.1}, "beta": np.float64(0.5)},
        "position": [1, None, "x", True],
    }
    plain, arrays = _unpacked(content)
    back = _packed(json.loads(json.dumps(plain)), arrays)
    assert back["optimizer"] == {"LR_Scheduler": {"last_epoch": 7, "last_lr": 0.1}, "beta": 0.5}
    assert back["position"] == [1, None, "x", True]
    for name, array in content["params"].items():
        assert back["params"][name] is array


SCRIPT = """
import json, sys
import numpy as np
import paddle
from rectrain_trainer.ranks import Ranks

ranks = Ranks.from_environment()
ranks.open()
paddle.seed(1)
layer = paddle.nn.Linear(3, 2)
samples = np.arange(15, dtype=np.float32).reshape(5, 3)
mine = ranks.share.of(list(range(int(sys.argv[1]))))
layer(paddle.to_tensor(samples[mine])).square().mean().backward()
ranks.average_gradients(layer, int(sys.argv[1]))
state = {"a": np.arange(4), "text": "ก", "n": 1.5} if ranks.first else None
shared = ranks.same(state)
ranks.gate("here")
print(json.dumps([layer.weight.grad.numpy().tolist(), shared["a"].tolist(), shared["text"], shared["n"]]))
sys.stdout.flush()
ranks.gate("read")
"""


def ranks_run(script: str, *arguments: str, world: int = 2, **more: str) -> list[subprocess.Popen[str]]:
    port = free_port("127.0.0.1")
    started = []
    for rank in range(world):
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            RANK: str(rank),
            WORLD: str(world),
            "PADDLE_MASTER": f"127.0.0.1:{port}",
            "PADDLE_TRAINER_ENDPOINTS": ",".join(["127.0.0.1:1"] * world),
            "PADDLE_CURRENT_ENDPOINT": "127.0.0.1:1",
            "PADDLE_DISTRI_BACKEND": "gloo",
            **more,
        }
        command = [sys.executable, "-c", script, *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True))
    return started


@pytest.mark.parametrize("count", [5, 1])
def test_the_mean_gradient_is_that_of_the_whole_step(count: int) -> None:
    """Also of a step with an odd sample, and of one with fewer samples than ranks."""
    said = []
    for process in ranks_run(SCRIPT, str(count)):
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        said.append(json.loads(out.splitlines()[-1]))
    alone = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace('ranks.gate("read")', "").replace("ranks.same(state)", "state"),
         str(count)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    want = json.loads(alone.stdout.splitlines()[-1])
    for got in said:
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
        assert got[1:] == want[1:]


LOSES = """
import os, paddle
from rectrain_api.errors import PeerLost
from rectrain_trainer.ranks import Ranks

ranks = Ranks.from_environment()
ranks.open()
layer = paddle.nn.Linear(3, 2)
ranks.gate("met")  # or rank 0 may lose it while they meet
if not ranks.first:
    os.kill(os.getpid(), 9)
layer(paddle.ones([1, 3])).mean().backward()
try:
    ranks.average_gradients(layer, 2)
except PeerLost as e:
    print(e, flush=True)
os._exit(0)
"""


def test_a_lost_peer_is_an_error_of_ours() -> None:
    first, second = ranks_run(LOSES)
    out, errors = first.communicate(timeout=120)
    assert "Another rank of this run was lost while averaging gradients" in out, errors
    second.communicate(timeout=120)


EVALUATES = """
import json, sys
from pathlib import Path
from rectrain_trainer.device import configure_device
from rectrain_trainer.evaluate import EvalSet, evaluate, share_statistics, take_part
from rectrain_trainer.model import build_decoder, build_model
from rectrain_trainer.ranks import Ranks
from tests.unit.trainer_learn.recipes import loose, make_recipe
from tests.unit.trainer_learn.exports import wordy

configure_device(0, deterministic=True)
recipe = make_recipe()
ranks = Ranks.from_environment()
model = build_model(recipe)
held_out = EvalSet(recipe, loose(Path(sys.argv[1])))
model.set_state_dict(wordy(recipe, held_out))
decoder = build_decoder(recipe.characters, use_space_char=False)
held_out.on_batch = (lambda: None) if ranks.first else ranks.sign
ranks.open()
for number, scale in enumerate((1.0, 0.01)):
    for name, tensor in model.state_dict().items():
        if "_variance" in name:
            tensor.set_value(tensor * (scale if ranks.first else 9.0))
    share_statistics(model, ranks)
    if ranks.first:
        print(json.dumps(evaluate(model, decoder, held_out, ranks).found.to_json()), flush=True)
    else:
        take_part(model, decoder, held_out, ranks)
    ranks.gate(f"evaluated-{number}")
"""


def test_ranks_find_together_what_one_finds_alone(digits: Path) -> None:
    """Though the running statistics of each are its own; once more with other ones, under the same names."""
    alone = subprocess.run(
        [sys.executable, "-c", EVALUATES, str(digits)], capture_output=True, text=True, check=True
    )
    wanted = [Found.of(json.loads(line)) for line in alone.stdout.splitlines()]
    first, second = ranks_run(EVALUATES, str(digits))
    said, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    found = [Found.of(json.loads(line)) for line in said.splitlines()]
    assert found[0].tally.samples == 50
    assert [f.tally for f in found] == [w.tally for w in wanted]
    assert found[0].tally != found[1].tally
    second.communicate(timeout=120)
    assert second.returncode == 0


class SlowOther:
    """Paddle's store, beside a rank that gives three signs of life, is silent for a while, and hands in."""

    def __init__(self) -> None:
        self.looks = 0

    def add(self, name: str, _: int) -> int:
        if name == "signs":
            return min(self.looks, 3)
        self.looks += 1
        return int(self.looks > 6)

    def get(self, name: str) -> bytes:
        return name.encode()


def test_a_slow_rank_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it gives signs of life."""
    monkeypatch.setattr(ranks_module, "_GATE_POLL_S", 0)
    ranks, signs = Ranks(Share(0, 2)), []
    ranks._store = SlowOther()
    assert ranks.collect(lambda: signs.append("sign")) == [b"handed-in-of-1"]
    assert signs == ["sign"] * 3


def test_alone_nothing_is_averaged_or_awaited() -> None:
    ranks = Ranks()
    ranks.open()
    ranks.gate("never opened")
    ranks.average_gradients(None, 1)
    assert ranks.of_first(b"said") == b"said"
    assert ranks.collect() == []
    assert ranks.first
