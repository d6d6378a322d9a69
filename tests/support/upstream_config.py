"""A config as PaddleOCR's users have it, small enough to train in a test, and its data on the disk."""

from pathlib import Path
from typing import Any

import yaml

from rectrain_api.presets import load
from rectrain_data import demo


def make_config(data: Path, output: Path | str) -> dict[str, Any]:
    """Of PaddleOCR's style: sections, operators, and keys that RecTrain doesn't use."""
    model = load("svtr_nano").config.dump()
    resize = {"RecResizeImg": {"image_shape": [3, 32, 64]}}
    transforms = [
        {"DecodeImage": {"img_mode": "BGR", "channel_first": False}},
        {"CTCLabelEncode": None},
        resize,
        {"KeepKeys": {"keep_keys": ["image", "label", "length"]}},
    ]

    def part(name: str) -> dict[str, Any]:
        return {
            "dataset": {
                "name": "SimpleDataSet",
                "data_dir": str(data),
                "label_file_list": [str(data / f"{name}.txt")],
                "transforms": transforms,
            },
            "loader": {"shuffle": True, "drop_last": True, "batch_size_per_card": 16, "num_workers": 0},
        }

    return {
        "Global": {
            "debug": False,
            "use_gpu": False,
            "epoch_num": 2,
            "log_smooth_window": 20,
            "print_batch_step": 10,
            "save_model_dir": str(output),
            "save_epoch_step": 3,
            "eval_batch_step": [0, 6],
            "cal_metric_during_train": True,
            "pretrained_model": None,
            "checkpoints": None,
            "use_visualdl": False,
            "character_dict_path": None,
            "max_text_length": 8,
            "use_space_char": False,
        },
        "Optimizer": model["Optimizer"] | {"lr": {"name": "Cosine", "learning_rate": 0.003}},
        "Architecture": model["Architecture"],
        "Loss": model["Loss"],
        "PostProcess": model["PostProcess"],
        "Metric": {"name": "RecMetric", "main_indicator": "acc"},
        "Train": part("train"),
        "Eval": part("eval"),
    }


def write_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def write_digits(data: Path, train: int, held_out: int) -> None:
    """Images of digits, with train.txt and eval.txt."""
    (data / "images").mkdir(parents=True)
    numbers = iter(range(train + held_out))
    for name, count in (("train", train), ("eval", held_out)):
        lines = []
        for _, number in zip(range(count), numbers, strict=False):
            text, png = demo.sample(7, number)
            (data / f"images/{number}.png").write_bytes(png)
            lines.append(f"images/{number}.png\t{text}\n")
        (data / f"{name}.txt").write_text("".join(lines))
