"""What a config of PaddleOCR becomes on a machine without S3, and what is said of one that can't be run."""

import re
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import InputMissing, InvalidSpec, PermissionRefused, RectrainError, UsageError
from rectrain_api.plan import RunPlan
from rectrain_data.dictionary import builtin_names
from rectrain_trainer.laptop import gpus_here, overrides_of, plan_of_config
from rectrain_trainer.upstream_words import in_upstream_words
from tests.support.upstream_config import make_config, write_config, write_digits


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data in it."""
    write_digits(tmp_path / "data", 3, 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*pairs: str, gpus: int = 0, change: dict[str, Any] | None = None) -> RunPlan:
    """Of a config whose places are relative, as upstream's own are."""
    config = make_config(Path("./data"), "./output/rec")
    for key, value in (change or {}).items():
        part, _, name = key.partition(".")
        config[part] = config[part] | {name: value}
    return plan_of_config(write_config(Path("config.yml"), config), overrides_of(pairs), gpus)


def test_a_config_and_its_places_are_a_plan(here: Path) -> None:
    plan = planned("Global.epoch_num=7", "Global.seed=5", gpus=2)
    assert plan.checkpoint.uri == f"file://{here}/output/rec"
    assert str(plan.identity) == "local/rec"
    assert plan.data.train == f"file://{here}/data/train.txt"
    assert plan.data.train_files is not None
    assert plan.data.train_files.folder == f"file://{here}/data"
    assert plan.data.eval == f"file://{here}/data/eval.txt"
    assert (plan.training.epochs, plan.training.seed, plan.training.batch_size) == (7, 5, 16)
    assert (plan.training.eval_interval.every, plan.training.eval_interval.unit) == (6, "steps")
    assert (plan.training.learning_rate, plan.training.workers, plan.gpus) == (0.003, 0, 0)
    assert plan.data.validation == "Warn"
    assert plan.model.origin is not None
    said = "; ".join(plan.model.origin.notes)
    for key in ("print_batch_step", "log_smooth_window", "use_visualdl", "save_epoch_step"):
        assert f"Global.{key} is" in said
    assert "checkpoint.uri" not in said
    assert RunPlan.model_validate_json(plan.to_json()) == plan
    assert "s3://" not in plan.to_json()


def test_devices_are_those_that_are_here(here: Path) -> None:
    assert planned("Global.use_gpu=true", gpus=2).gpus == 1
    assert planned("Global.use_gpu=true", gpus=2, change={"Global.distributed": True}).gpus == 2
    none = planned("Global.use_gpu=true", gpus=0)
    assert none.gpus == 0
    assert none.model.origin is not None
    assert "Global.use_gpu isn't used: there is no GPU here, so the CPU trains" in none.model.origin.notes
    for hidden in ("", "-1", "-1,0"):
        assert gpus_here({"CUDA_VISIBLE_DEVICES": hidden}) == 0


def test_label_files_lmdbs_and_a_missing_eval(here: Path) -> None:
    (here / "more.txt").write_text("")
    two = planned('Train.dataset.label_file_list=["data/train.txt", "more.txt"]')
    assert two.data.train_files is not None
    assert two.data.train == two.data.train_files.folder == f"file://{here}/data"
    assert two.data.train_files.files == [f"file://{here}/data/train.txt", f"file://{here}/more.txt"]
    config = make_config(Path("data"), "output")
    config["Train"]["dataset"] |= {"name": "LMDBDataSet", "data_dir": "data"}
    del config["Train"]["dataset"]["label_file_list"], config["Eval"]
    lmdb = plan_of_config(write_config(here / "lmdb.yml", config), {}, 0)
    assert (lmdb.data.train, lmdb.data.train_files, lmdb.data.eval) == (f"file://{here}/data", None, None)


def test_weights_to_start_from(here: Path) -> None:
    for name in ("best_accuracy", "latest"):
        (here / f"{name}.pdparams").write_bytes(b"")
    for named in ("best_accuracy", "./best_accuracy.pdparams"):
        found = planned(f"Global.pretrained_model={named}").model.pretrained
        assert found is not None
        assert (found.uri, found.checkpoint) == (f"file://{here}/best_accuracy.pdparams", None)
    both = planned("Global.pretrained_model=best_accuracy", "Global.checkpoints=./latest")
    assert both.model.pretrained is not None
    assert both.model.pretrained.uri == f"file://{here}/latest.pdparams"
    assert both.model.origin is not None
    assert any(note.startswith("Global.checkpoints gives") for note in both.model.origin.notes)
    (here / "other/log").mkdir(parents=True)
    run = planned("Global.pretrained_model=other").model.pretrained
    assert run is not None
    assert (run.uri, run.checkpoint) == (f"file://{here}/other", "Best")
    (here / "output/rec/log").mkdir(parents=True)
    for own in (
        "output/rec",
        "./output/rec/latest",
    ):  # as PaddleOCR's users go on: this run does so by itself
        assert planned(f"Global.checkpoints={own}").model.pretrained is None


def test_dictionaries(here: Path) -> None:
    (here / "own.txt").write_text("0\n1\n")
    upstreams = builtin_names()["en_dict"]
    (here / "en_dict.txt").write_bytes(upstreams.read_bytes())
    assert planned().data.dictionary == "FromLabels"
    assert planned("Global.character_dict_path=own.txt").data.dictionary == f"file://{here}/own.txt"
    assert planned("Global.character_dict_path=en_dict.txt").data.dictionary == "en_dict"
    assert planned("Global.character_dict_path=ppocr/utils/en_dict.txt").data.dictionary == "en_dict"


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (["Global.epoch_num"], UsageError, "-o Global.epoch_num isn't Key=value: write it like"),
        (["Global.epoch_nun=3"], InvalidSpec, "no key 'epoch_nun' (did you mean 'epoch_num'?)"),
        (["Global.epoch_num=many"], InvalidSpec, "'Global.epoch_num' must be a whole number"),
        (
            ["Train.dataset.data_dir=nowhere"],
            InputMissing,
            "Train.dataset.data_dir: there is no folder {}/nowhere",
        ),
        (
            ["Eval.dataset.label_file_list=data/val.txt"],
            InputMissing,
            "Eval.dataset.label_file_list: there is no file {}/data/val.txt: correct the path.",
        ),
        (["Global.character_dict_path=th.txt"], InputMissing, "there is no file {}/th.txt"),
        (
            ["Global.pretrained_model=latest"],
            InputMissing,
            "Global.pretrained_model: there is no file {}/latest.pdparams",
        ),
        (
            ["Global.save_model_dir=/sys/output"],
            PermissionRefused,
            "Global.save_model_dir: /sys/output can't be written (Operation not permitted): choose another",
        ),
        (["Global.pretrained_model=/"], InputMissing, "Global.pretrained_model: there is no file /"),
        (["Global.seed=-1"], InvalidSpec, "Global.seed: Input should be greater than or equal to 0"),
        (["Global.eval_batch_step=[0, -5]"], InvalidSpec, "Global.eval_batch_step: "),
        (["Global.save_model_dir="], InvalidSpec, "Global.save_model_dir is missing: say where"),
    ],
)
def test_what_cannot_be_run_is_named(
    here: Path, pairs: list[str], error: type[RectrainError], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message.format(here))):
        planned(*pairs)
    assert not (here / "output").exists()


def test_parts_of_label_files(here: Path) -> None:
    config = make_config(Path("data"), "output")
    for part, ratios, message in (
        ("Train", [1.5], r"Train\.dataset\.ratio_list is \[1\.5\]: it must be one number from 0 to 1"),
        ("Train", [0.5, 0.5], "or one for each label file"),
        ("Eval", [0.5], r"Eval\.dataset\.ratio_list is \[0\.5\], and RecTrain evaluates on whole"),
    ):
        config[part]["dataset"]["ratio_list"] = ratios
        with pytest.raises(InvalidSpec, match=message):
            plan_of_config(write_config(here / "part.yml", config), {}, 0)
        config[part]["dataset"]["ratio_list"] = 0.5 if part == "Train" else [1.0]
    plan = plan_of_config(write_config(here / "part.yml", config), {}, 0)
    assert plan.data.train_files is not None
    assert plan.data.train_files.ratios == [0.5]
    assert plan.data.eval_files is not None
    assert plan.data.eval_files.ratios is None
    with pytest.raises(InputMissing, match=r"The config nowhere\.yml can't be read \(No such file"):
        plan_of_config(Path("nowhere.yml"), {}, 0)


def test_messages_name_the_keys_of_the_config() -> None:
    said = (
        "set training.epochs to 5, mend data.train, choose another checkpoint.uri (model.config.Loss: a → b)."
    )
    meant = (
        "set Global.epoch_num to 5, mend Train.dataset, choose another Global.save_model_dir (Loss: a → b)."
    )
    assert in_upstream_words(said) == meant
    assert in_upstream_words("shorten the schedule (model.overrides).") == "shorten the schedule."
    unknown = "isn't known: name it in model.pretrained.dictionary)"
    assert in_upstream_words(unknown) == "isn't known: start from the folder of a run, which knows its own)"
    assert in_upstream_words("/data.train/x and mydata.training") == "/data.train/x and mydata.training"
