"""The check stage: what each way of validating does with bad samples, and what is told of it."""

import dataclasses
import json
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paddle
import pytest

from rectrain_api.errors import DatasetInvalid, DeviceUnavailable, InvalidSpec
from rectrain_api.plan import RunPlan
from rectrain_api.report import REPORT_LIMIT_BYTES
from rectrain_api.status import FINDINGS_KEPT, Devices
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Code, sentence
from rectrain_data.upstream_losses import Losses
from rectrain_trainer import check, upstream
from rectrain_trainer import surroundings as surroundings_module
from rectrain_trainer.board import Board
from rectrain_trainer.device import _select
from rectrain_trainer.devices import describe_devices
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.found import STATUS_MESSAGE, Found
from rectrain_trainer.loader import Loader
from rectrain_trainer.memory import memory_limit
from rectrain_trainer.schedule import count_evaluations, schedule_findings
from rectrain_trainer.sources import StagedSource
from rectrain_trainer.stage import Staged
from rectrain_trainer.surroundings import driver_version, surroundings
from rectrain_trainer.uris import UriMap
from tests.support.plans import make_plan
from tests.unit.trainer_learn.digits import make_digits
from tests.unit.trainer_learn.recipes import make_recipe

DICTIONARY = Dictionary(tuple("0123456789"))
BAD_TRAIN = {1: "12x", 3: "xyz", 5: "1" * 9}
BAD_EVAL = {2: "7x"}
Stage = Callable[..., Staged]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """24 images to train on, 12 to evaluate on; some labels changed, some images broken."""

    def make(
        train: dict[int, str] | None = None,
        held_out: dict[int, str] | None = None,
        broken: dict[str, list[int]] | None = None,
    ) -> Staged:
        uris, sources = UriMap(), {}
        for number, (part, count, labels) in enumerate((("train", 24, train), ("eval", 12, held_out))):
            folder = tmp_path / part
            file = make_digits(folder, count, seed=number, longest=4)
            lines = file.read_text().splitlines()
            for i, text in (labels or {}).items():
                lines[i] = f"images/{i:05d}.png\t{text}"
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            for i in (broken or {}).get(part, []):
                (folder / f"images/{i:05d}.png").write_bytes(b"no image")
            uris.add(folder, f"s3://data/{part}")
            sources[part] = StagedSource(file, packed=False)
        return Staged(sources["train"], sources["eval"], DICTIONARY, uris)

    return make


def found_in(staged: Staged, validation: str, **sections: Any) -> tuple[Found, Board]:
    board = Board("s3://runs/digits")
    plan = make_plan(epochs=3, batch_size=8, data={"validation": validation}, **sections)
    return checked(plan, staged, board), board


def checked(plan: RunPlan, staged: Staged, board: Board, show: check.Show | None = None) -> Found:
    return check.check_data(plan, check.recipe_for(plan, staged, board, show), staged, board, show)


def test_good_data_has_nothing_to_say(stage: Stage) -> None:
    found, board = found_in(stage(), "Strict")
    assert (found.findings, found.samples, found.decoded, found.left_out) == ([], 36, 36, 0)
    assert board.report().data == found.status()
    assert found.to_text().splitlines() == [
        "24 samples to train on, 12 to evaluate on.",
        "Checked 36 samples: every label, and every image, decoded.",
        "Nothing was found to be wrong.",
        "PaddleOCR's own training would do this with the same data, and say nothing:",
        "  training set, 24 samples",
        "    no label or image lost",
        "    about 6 / 8 / 8 samples never seen in each epoch on 2 / 4 / 8 GPUs (PaddleOCR 3.7)",
        "      RecTrain shows each sample once an epoch, on one of the GPUs.",
        "  evaluation set, 12 samples",
        "    no label or image lost",
    ]
    nothing = dataclasses.replace(found, train_losses=Losses())
    assert "RecursionError" not in nothing.to_text(), "too few to be split are not all bad"


def test_strict_refuses_with_codes_places_and_a_way_out(stage: Stage) -> None:
    staged = stage({1: "12x"}, broken={"eval": [4]})
    with pytest.raises(DatasetInvalid) as refused:
        found_in(staged, "Strict")
    assert str(refused.value) == (
        "The data can't be trained on: RD012 at s3://data/train/labels.txt line 2 (images/00001.png, "
        '"x" U+0078, 1 time): labels have characters that the dictionary lacks; add them to the dictionary '
        "(or set data.dictionary: FromLabels), or correct the labels. RD011 at s3://data/eval/labels.txt "
        "line 5 (images/00004.png, it isn't an image in a format that OpenCV reads): the image can't be "
        "decoded; replace it, or remove the sample. With data.validation: Warn, such samples are left out of "
        "training."
    )


@pytest.mark.parametrize("validation", ["Strict", "Warn"])
def test_what_is_shown_is_not_said_again(
    validation: str, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A check prints its findings: in the log and in the refusal they would only stand once more."""
    caplog.set_level(logging.INFO, "rectrain_trainer")
    shown: list[Found] = []
    plan = make_plan(epochs=3, batch_size=25, data={"validation": validation})
    staged, board = stage({1: "12x"}, broken={"eval": [4]}), Board("s3://runs/digits")
    if validation == "Strict":
        with pytest.raises(DatasetInvalid) as refused:
            checked(plan, staged, board, shown.append)
        assert str(refused.value) == (
            "The data can't be trained on: see the findings (RD012, RD011). With data.validation: Warn, such "
            "samples are left out of training."
        )
    else:
        shown.append(checked(plan, staged, board, shown.append))
    assert [[f.code for f in one.findings] for one in shown] == [
        [
            Code.UNKNOWN_CHARACTER,
            Code.IMAGE_UNREADABLE,
            Code.BATCH_EXCEEDS_DATA,
        ]
    ]
    assert caplog.text == ""


def test_warn_leaves_out_what_cannot_be_trained_on(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rectrain_trainer")
    staged = stage(BAD_TRAIN, BAD_EVAL, broken={"train": [0, 5], "eval": [4]})
    found, board = found_in(staged, "Warn")
    assert (found.train_samples, found.eval_samples, found.left_out) == (20, 11, 5)
    status = board.report().data
    assert status is not None
    assert (status.train_samples, status.eval_samples, status.left_out) == (20, 11, 5)
    assert {f.code for f in status.findings} == {"RD011", "RD012", "RD013", "RD014", "RD020"}
    assert all(f.severity == "Error" and f.message in caplog.text for f in status.findings)
    assert "Checked 36 samples: every label, and every image, decoded; 5 left out." in caplog.text

    source: StagedSource = pickle.loads(pickle.dumps(found.staged.train))
    assert len(pickle.dumps(found.staged.train)) < len(pickle.dumps(staged.train)) + 100
    kept = source.open()
    assert [kept.name(i).partition("(")[2] for i in range(4)] == [
        f"images/{i:05d}.png)" for i in (2, 4, 6, 7)
    ]
    recipe = make_recipe()
    with Loader(recipe, source) as loader:
        assert sum(len(batch.images) for batch in loader.batches(0)) == 20
    labels = EvalSet(recipe, found.staged.eval).labels()
    assert len(labels) == 11
    assert "7x" in labels, "a label that the model can't write is an error of the model"


def test_a_verdict_says_what_is_left_out(stage: Stage) -> None:
    assert found_in(stage(), "Strict")[0].verdict() == "data, model and S3 are fine"
    assert found_in(stage(), "Off")[0].verdict() == "model and S3 are fine, the data wasn't looked at"
    found, _ = found_in(stage(BAD_TRAIN, broken={"eval": [4]}), "Warn")
    assert found.verdict() == "model and S3 are fine, and so is the data but for 4 samples left out"
    found, _ = found_in(stage(held_out=BAD_EVAL), "Warn")
    assert found.verdict() == "model and S3 are fine, and so is the data but for what was found, all kept"


def test_of_a_set_that_is_split_by_hash_each_part_is_left_what_it_can_use(stage: Stage) -> None:
    """Both parts are of one set: a bad label is left out of training, and kept for evaluation."""
    whole = stage(dict.fromkeys(range(0, 24, 2), "xy"), broken={"train": [1, 3]}).train
    parts = [dataclasses.replace(whole, part=part, eval_fraction=0.4) for part in ("train", "eval")]
    before = [part.open().indices for part in parts]
    found, _ = found_in(Staged(parts[0], parts[1], DICTIONARY, UriMap()), "Warn")
    assert found.samples == 24
    after = [part.open().indices for part in (found.staged.train, found.staged.eval)]
    assert list(after[0]) == [i for i in before[0] if i % 2 and i not in (1, 3)]
    assert list(after[1]) == [i for i in before[1] if i not in (1, 3)]
    assert (found.train_samples, found.eval_samples) == (len(after[0]), len(after[1]))


def test_warn_refuses_when_nothing_is_left(stage: Stage) -> None:
    shown: list[Found] = []
    staged = stage(dict.fromkeys(range(24), "xy"))
    with pytest.raises(DatasetInvalid, match=r"^No sample is left to train on\. The data can't .*RD020"):
        checked(make_plan(data={"validation": "Warn"}), staged, Board("s3://r/d"), shown.append)
    assert "It would end in a RecursionError" in shown[0].to_text()
    with pytest.raises(DatasetInvalid, match=r"^No sample is left to evaluate on\. The data can't .*RD011"):
        found_in(stage(broken={"eval": list(range(12))}), "Warn")


def test_a_set_that_is_too_small_to_be_split(stage: Stage) -> None:
    whole = dataclasses.replace(stage().train, part="train", eval_fraction=0.5)
    whole.path.write_text(whole.path.read_text().splitlines(keepends=True)[0])
    parts = [whole, dataclasses.replace(whole, part="eval")]
    with pytest.raises(DatasetInvalid) as refused:
        found_in(Staged(parts[0], parts[1], DICTIONARY, UriMap()), "Strict")
    assert str(refused.value) == (
        "s3://data/digits holds too few samples to train on some and evaluate on others: add some, or name "
        "an evaluation set in data.eval."
    )


def test_off_looks_at_nothing_but_the_schedule(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "check_set", lambda *_, **__: pytest.fail("it looked"))
    found, _ = found_in(stage(BAD_TRAIN, broken={"train": [0]}), "Off", training={"batchSize": 64})
    assert (found.train_samples, found.eval_samples, found.left_out) == (24, 12, 0)
    assert [f.code for f in found.findings] == [Code.BATCH_EXCEEDS_DATA]
    assert found.to_dict()["upstream"] is None
    assert "Neither labels nor images were looked at (data.validation: Off)." in found.to_text()
    found, _ = found_in(stage(BAD_TRAIN), "Off")
    assert "Nothing was found to be wrong" not in found.to_text()


def test_how_many_of_how_many_were_decoded_is_said(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "DECODED", 12)
    found, _ = found_in(stage(), "Strict")
    assert (found.samples, found.decoded) == (36, 12)
    assert found.sentence() == (
        "Checked 36 samples: every label, and every image's first and last bytes; 12 images, spread evenly, "
        "were decoded (a damaged one among the others would end the run when it is met)"
    )
    assert found.to_dict()["imagesDecoded"] == 12


def test_what_upstream_would_lose_stands_beside_what_we_do(stage: Stage) -> None:
    found, _ = found_in(stage(BAD_TRAIN, BAD_EVAL, broken={"train": [0], "eval": [4]}), "Warn")
    text = found.to_text()
    assert text[text.index("PaddleOCR") :].splitlines() == [
        "PaddleOCR's own training would do this with the same data, and say nothing:",
        "  training set, 24 samples",
        "    2 labels dropped (0 empty, 1 too long, 1 wholly unknown), "
        "swapped for another sample, every time",
        "    1 image unreadable, swapped for another sample, every time",
        "    1 label shortened by 1 character",
        "      RecTrain leaves them out of training, and says so.",
        "    about 6 / 8 / 8 samples never seen in each epoch on 2 / 4 / 8 GPUs (PaddleOCR 3.7)",
        "      RecTrain shows each sample once an epoch, on one of the GPUs.",
        "  evaluation set, 12 samples",
        "    1 sample (0 labels, 1 image) swapped for the next, which counts twice",
        "    1 label compared without 1 character",
        "      RecTrain compares whole labels: what the model can't write is an error of the model.",
    ]
    said = json.loads(found.to_json())
    assert said["upstream"]["neverSeenByRanks"] == {"2": 6, "4": 8, "8": 8}
    assert (said["upstream"]["train"]["dropped"], said["upstream"]["train"]["tooLong"]) == (2, 1)
    assert (said["checked"], said["imagesDecoded"], said["leftOut"], said["trainSamples"]) == (36, 36, 5, 20)


def test_findings_of_long_labels_fit_into_a_report(stage: Stage) -> None:
    found, board = found_in(stage({1: "ก" * 100_000}, {1: "ก" * 100_000}), "Warn")
    findings = found.status().findings
    longest = max(findings, key=lambda f: len(f.message.encode()))
    assert len(longest.message) == STATUS_MESSAGE
    full = board.report().model_copy(
        update={"data": found.status().model_copy(update={"findings": [longest] * FINDINGS_KEPT})}
    )
    assert len(full.model_dump_json(by_alias=True).encode()) < REPORT_LIMIT_BYTES


# -- the schedule

SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "as it should be": ({}, {}, []),
    "a batch of more than there is": (
        {"training": {"batchSize": 25}},
        {},
        [
            "RD021 at training.batchSize (25, and there are 24 samples to train on): a batch is larger than "
            "the training set, so that an epoch is a single step; lower training.batchSize, or add data"
        ],
    ),
    "a batch over several devices": (
        {"training": {"batchSize": 4}, "replicas": {"nodes": 2, "gpusPerNode": 4}},
        {},
        [
            "RD021 at training.batchSize (4 on each of 8 devices, and there are 24 samples to train on): a "
            "batch is larger than the training set, so that an epoch is a single step; lower "
            "training.batchSize, or add data"
        ],
    ),
    "an evaluation now and then": (
        {"training": {"evalInterval": 2000}},
        {},
        [
            "RD022 at training.evalInterval (every 2000 steps: 1 in 3 epochs): fewer than three evaluations "
            "in the run, so that there is little to choose the best weights from; lower "
            "training.evalInterval, or raise training.epochs"
        ],
    ),
    "a warm-up as long as the run": (
        {},
        {"warmup_epoch": 3},
        [
            "RD023 at Optimizer.lr.warmup_epoch (until epoch 3, of 3): the schedule of the learning rate "
            "reaches the end of the run, or beyond; raise training.epochs, or shorten the schedule "
            "(model.overrides)"
        ],
    ),
    "a step beyond the end": (
        {},
        {"decay_epochs": [2, 700], "warmup_epoch": 2},
        [
            "RD023 at Optimizer.lr.decay_epochs (until epoch 700, of 3): the schedule of the learning rate "
            "reaches the end of the run, or beyond; raise training.epochs, or shorten the schedule "
            "(model.overrides)"
        ],
    ),
    "steps, and milestones": (
        {},
        {"step_size": 4, "milestones": [1, 3]},
        [
            "RD023 at Optimizer.lr.step_size (until epoch 4, of 3) and 1 more: the schedule of the learning "
            "rate reaches the end of the run, or beyond; raise training.epochs, or shorten the schedule "
            "(model.overrides)"
        ],
    ),
    "the last epoch among the steps, as upstream's PP-OCRv2 has it": (
        {},
        {"decay_epochs": [2, 3], "values": [0.001, 0.0001]},
        [],
    ),
    "a value for the last epoch, which never comes": (
        {},
        {"decay_epochs": [3], "values": [0.001, 0.0001]},
        [
            "RD023 at Optimizer.lr.decay_epochs (until epoch 3, of 3): the schedule of the learning rate "
            "reaches the end of the run, or beyond; raise training.epochs, or shorten the schedule "
            "(model.overrides)"
        ],
    ),
}


@pytest.mark.parametrize(("sections", "lr", "said"), SCHEDULES.values(), ids=SCHEDULES)
def test_what_does_not_fit_the_run_is_said(
    sections: dict[str, Any], lr: dict[str, Any], said: list[str]
) -> None:
    training = {"epochs": 3, "batchSize": 8} | sections.get("training", {})
    plan = make_plan(**(sections | {"training": training}))
    recipe = make_recipe(epochs=3, batch_size=training["batchSize"])
    recipe.optimizer["lr"] |= lr
    found = schedule_findings(plan, recipe, 24, plan.ranks)
    assert [str(f) for f in found] == said
    assert all(f.is_of_schedule and f.is_error == (f.code == Code.WARMUP_TOO_LONG) for f in found)


@pytest.mark.parametrize(
    ("interval", "expected"), [(1, 9), (2, 5), (3, 3), (9, 1), (10, 1), ("1 epoch", 3), ("2 epochs", 2)]
)
def test_evaluations_are_counted_as_training_makes_them(interval: int | str, expected: int) -> None:
    plan = make_plan(training={"epochs": 3, "evalInterval": interval})
    assert count_evaluations(plan, make_recipe(epochs=3, batch_size=8), 24, ranks=1) == expected


def test_a_warm_up_that_is_too_long_is_refused_as_a_fault_of_the_manifest(stage: Stage) -> None:
    model = {"preset": "svtr_nano", "overrides": {"Optimizer.lr.warmup_epoch": "3"}}
    with pytest.raises(InvalidSpec) as refused:
        found_in(stage(), "Strict", model=model)
    assert str(refused.value) == (
        "The run can't be trained as it is planned: RD023 at Optimizer.lr.warmup_epoch (until epoch 3, of "
        "3): the schedule of the learning rate reaches the end of the run, or beyond; raise training.epochs, "
        "or shorten the schedule (model.overrides)."
    )
    found, _ = found_in(stage(), "Warn", model=model)
    assert [f.code for f in found.findings] == [Code.WARMUP_TOO_LONG]


def test_a_sentence_counts_the_kinds_that_it_leaves_out(stage: Stage) -> None:
    found, _ = found_in(stage(BAD_TRAIN, broken={"train": [0]}), "Warn")
    assert len(found.findings) == 5
    assert sentence(found.findings).endswith("(2 more kinds of fault).")


# -- what there is to work with


def test_the_surroundings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = r"\d+(\.\d)? (B|KiB|MiB|GiB)"
    devices = describe_devices("cpu")
    told = [
        rf"Device: CPU {re.escape(devices.name)}, \d+ cores?",
        rf"Memory: {size}, (all of this machine|the limit of this container)",
        rf"Shared memory: {size} at /dev/shm \(image loading needs none\)",
        rf"Disk: {size} of {size} free at {re.escape(str(tmp_path))}",
        rf"PaddleOCR's training code: .*{re.escape(str(upstream.locate()))}",
    ]
    for line, expected in zip(surroundings(devices, tmp_path), told, strict=True):
        assert re.fullmatch(expected, line), line
    for limit, memory in ((1 << 20, "1.0 MiB, the limit of this container"), (None, "all of this machine")):
        monkeypatch.setattr(surroundings_module, "memory_limit", lambda _, limit=limit: limit)
        assert memory in [*surroundings(devices, tmp_path)][1]


def test_a_gpu_is_told_with_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it can be known."""
    version = tmp_path / "version"
    monkeypatch.setattr(surroundings_module, "_NVIDIA", version)
    monkeypatch.setattr(paddle.version, "cuda", lambda: "12.6")
    gpu = Devices(kind="gpu", count=1, name="NVIDIA T4")

    def without() -> Any:
        raise ValueError("Paddle has no GPU")

    monkeypatch.setattr(paddle.device.cuda, "get_device_properties", without)
    assert next(surroundings(gpu, tmp_path)) == "Device: GPU NVIDIA T4, CUDA 12.6"
    monkeypatch.setattr(
        paddle.device.cuda, "get_device_properties", lambda: SimpleNamespace(total_memory=15 << 30)
    )
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5 2024")
    assert next(surroundings(gpu, tmp_path)) == (
        "Device: GPU NVIDIA T4, 15.0 GiB, CUDA 12.6, driver 550.54.15"
    )


@pytest.mark.parametrize(
    ("with_cuda", "said"),
    [
        (
            False,
            "The PaddlePaddle here is built for CPUs, and the job asks for GPUs: use the GPU image, or "
            "set replicas.gpusPerNode to 0.",
        ),
        (
            True,
            "The job asks for 2 GPUs, and the driver shows 1 here: look at the node's driver and device "
            "plugin.",
        ),
    ],
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, with_cuda: bool, said: str) -> None:
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: with_cuda)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceUnavailable) as refused:
        _select(2)
    assert str(refused.value) == said


def test_limits_and_drivers_are_read(tmp_path: Path) -> None:
    none, most, some = tmp_path / "none", tmp_path / "max", tmp_path / "some"
    most.write_text("max\n")
    some.write_text("4294967296\n")
    assert [memory_limit(f) for f in ((none, some), (most, some), (none,))] == [2**32, None, None]
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"
    open_line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build"
    assert [driver_version(text) for text in (line, open_line, "")] == ["550.54.15", "570.86.15", None]
