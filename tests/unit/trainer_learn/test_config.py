"""What is trained follows from plan and dictionary; what can't work is refused with a way out."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rectrain_api import presets
from rectrain_api.errors import DatasetInvalid, InputMissing, InvalidSpec
from rectrain_trainer import device, upstream
from rectrain_trainer.check import time_steps
from rectrain_trainer.config import check_characters, check_sections
from rectrain_trainer.model import build_learner
from tests.unit.trainer_learn.recipes import make_recipe


def sections(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = presets.load("svtr_nano").config.model_dump(by_alias=True)
    return config | changes


def test_the_head_is_as_wide_as_blank_dictionary_and_space() -> None:
    assert make_recipe().architecture["Head"]["out_channels"] == 11
    assert make_recipe(use_space_char=True).architecture["Head"]["out_channels"] == 12


def test_svtr_follows_the_image() -> None:
    backbone = make_recipe(width=128).architecture["Backbone"]
    assert (backbone["img_size"], backbone["out_char_num"]) == ([32, 128], 32)
    with pytest.raises(InvalidSpec, match="32x97"):
        make_recipe(width=97)


def test_an_override_reaches_the_model() -> None:
    wide = make_recipe(overrides={"Architecture.Backbone.embed_dim": "[32, 48, 128]"})
    assert build_learner(wide, 1).model.backbone.embed_dim == [32, 48, 128]


@pytest.mark.parametrize(
    ("preset", "scales", "said"),
    [
        pytest.param("svtr_nano", "[[64,32],[100,32]]", r"\[100, 32\] .* exactly \[64, 32\]", id="svtr"),
        pytest.param("crnn_mv3", "[[100,32],[100,48]]", r"\[100, 48\] .* height 32 alone", id="crnn"),
        pytest.param("crnn_mv3", "[[32,100]]", r"\(width, height\)", id="turned-around"),
    ],
)
def test_sizes_that_the_network_cannot_take_are_refused(preset: str, scales: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        make_recipe(preset, overrides={"sampler.scales": scales})


def test_a_label_has_to_fit_the_narrowest_size() -> None:
    assert time_steps(make_recipe("crnn_mv3")) == 25
    wide_and_narrow = {"sampler.scales": "[[100,32],[64,32],[160,32]]"}
    assert time_steps(make_recipe("crnn_mv3", overrides=wide_and_narrow)) == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"Loss": {"name": "MultiLoss"}},
            "Loss: MultiLoss is not supported with CTCHead; use CTCLoss",
            id="loss",
        ),
        pytest.param({"PostProcess": {"name": "SARLabelDecode"}}, "PostProcess", id="post-process"),
        pytest.param({"label_encode": "SARLabelEncode"}, "label_encode", id="encoder"),
        pytest.param({"augment": [{"CopyPaste": {}}]}, "augment: 'CopyPaste'", id="operator"),
        pytest.param({"augment": [{"RecAug": {}, "X": {}}]}, "augment", id="two-in-one"),
        pytest.param({"keep_keys": ["image"]}, "keep_keys", id="keys"),
        pytest.param({"resize": "ABINetRecResizeImg"}, "resize: 'ABINetRecResizeImg'", id="resize"),
        pytest.param(
            {"Optimizer": {"name": "AdamW", "act": "__import__('os').system('x')"}}, "plain words", id="call"
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said.replace("(", r"\(")):
        check_sections(sections(**changes))


@pytest.mark.parametrize(
    ("characters", "said"),
    [
        pytest.param(["a", " "], "line 2 is a space", id="space"),
        pytest.param(["ab"], "line 1 must be exactly one character", id="two"),
        pytest.param(["a", "b", "a"], "line 3 repeats 'a'", id="repeated"),
        pytest.param(["a", ""], "line 2 must be exactly one", id="blank-line"),
        pytest.param([], "empty", id="empty"),
    ],
)
def test_a_dictionary_that_upstream_would_misread_is_refused(characters: list[str], said: str) -> None:
    with pytest.raises(DatasetInvalid, match=said):
        check_characters(characters)


def test_only_allowed_operators_are_built() -> None:
    with pytest.raises(InvalidSpec, match=r"__import__"):
        upstream.load().create_operators([{"__import__('os').abort": None}], {})


def test_upstream_sets_no_signal_handler_and_prints_nothing() -> None:
    """As PID 1 of a group of its own, which is when upstream's handlers would SIGKILL the group."""
    code = (
        "import os, signal; os.setsid()\n"
        "from rectrain_trainer import upstream\n"
        "upstream.load()\n"
        "import ppocr.data; ppocr.data.set_signal_handlers()\n"
        "from ppocr.utils.logging import get_logger; get_logger().warning('noise')\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "noise" not in done.stderr


def test_handlers_that_an_import_installs_are_put_back() -> None:
    with upstream._signals_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_checkout_without_training_code_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PADDLEOCR_HOME", str(tmp_path))
    with pytest.raises(InputMissing, match="PADDLEOCR_HOME"):
        upstream.locate()
    (tmp_path / "ppocr/modeling").mkdir(parents=True)
    assert upstream.locate() == tmp_path


def test_a_package_that_a_checkout_needs_is_named(tmp_path: Path) -> None:
    (tmp_path / "ppocr/modeling").mkdir(parents=True)
    (tmp_path / "ppocr/utils").mkdir()
    (tmp_path / "ppocr/utils/logging.py").write_text("import no_such_package\n")
    command = [sys.executable, "-c", "from rectrain_trainer import upstream; upstream.load()"]
    env = os.environ | {"PADDLEOCR_HOME": str(tmp_path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=env)
    assert "InputMissing" in done.stderr
    assert "needs the Python package 'no_such_package'" in done.stderr


def test_threads_follow_the_cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    assert device.usable_cores() == 16
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert device.usable_cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert device.usable_cores() == 16
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("400000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert device.usable_cores() == 4
