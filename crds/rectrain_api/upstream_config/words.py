"""What the keys of upstream's configs mean to RecTrain: facts alone.

Sources: upstream's `ppocr/optimizer`, `ppocr/modeling`, `ppocr/data` of 2.10, and its configs of 2.x and 3.7.
"""

from typing import Any, Final

OPTIMIZERS: Final = frozenset({"Adam", "AdamW", "Momentum", "RMSProp", "Adadelta"})
SCHEDULES: Final = frozenset(
    {
        "Const",
        "Cosine",
        "CyclicalCosine",
        "DecayLearningRate",
        "Linear",
        "LinearWarmupCosine",
        "MultiStepDecay",
        "OneCycle",
        "Piecewise",
        "Step",
        "TwoStepCosine",
    }
)
REGULARIZERS: Final = frozenset({"L1", "L2", "L1Decay", "L2Decay"})

DATASETS: Final = frozenset({"SimpleDataSet", "LMDBDataSet", "MultiScaleDataSet"})
SAMPLERS: Final = frozenset({"MultiScaleSampler"})
ENCODERS: Final = frozenset({"CTCLabelEncode", "MultiLabelEncode"})
RESIZES: Final = frozenset({"RecResizeImg", "SVTRRecResizeImg"})

GUIDES: Final = frozenset({"NRTRHead", "SARHead"})
FORMULA_HEADS: Final = frozenset({"CANHead", "LaTeXOCRHead", "UniMERNetHead", "PPFormulaNet_Head"})

REPLACED: Final = {
    "Global.save_model_dir": "checkpoint.uri",
    "Global.save_epoch_step": "checkpoint.interval",
    "Global.checkpoints": "checkpoint.resume: a run goes on from its own newest checkpoint",
    "Global.pretrained_model": "model.pretrained",
    "Global.eval_batch_step": "training.evalInterval",
    "Global.eval_batch_epoch": "training.evalInterval",
    "Global.seed": "training.seed",
    "Global.use_gpu": "replicas.gpusPerNode",
    "Global.use_xpu": "replicas.gpusPerNode",
    "Global.use_npu": "replicas.gpusPerNode",
    "Global.use_mlu": "replicas.gpusPerNode",
    "Global.distributed": "replicas",
    "Global.use_space_char": "the labels: a space is learnt when one of them holds it",
    "Global.save_inference_dir": "the export, at the run's end",
    "Global.uniform_output_enabled": "the export, at the run's end",
    "Global.export_with_pir": "the export, at the run's end",
    "Global.use_visualdl": "metrics of the run's place",
    "Global.use_wandb": "metrics of the run's place",
}
"""Keys of Global in whose place something else decides."""

UNUSED: Final = {
    "Global.debug": "only PaddleOCR's own loop reads it",
    "Global.log_smooth_window": "only PaddleOCR's own loop reads it",
    "Global.print_batch_step": "only PaddleOCR's own loop reads it",
    "Global.cal_metric_during_train": "accuracy is measured on data that isn't trained on",
    "Global.calc_epoch_interval": "accuracy is measured on data that isn't trained on",
    "Global.infer_img": "training doesn't read it",
    "Global.infer_mode": "training doesn't read it",
    "Global.save_res_path": "training doesn't read it",
    "Global.character_type": "PaddleOCR itself doesn't read it any more",
    "Global.class_path": "training doesn't read it",
}

AMP: Final = {
    "amp_level": "level",
    "amp_dtype": "dtype",
    "amp_custom_black_list": "custom_black_list",
    "amp_custom_white_list": "custom_white_list",
    "scale_loss": "scale_loss",
    "use_dynamic_loss_scaling": "use_dynamic_loss_scaling",
}
"""Keys of Global, with `use_amp`, and their names in a preset."""
EMA: Final = {"ema_decay": "decay", "ema_gamma": "gamma", "ema_decay_type": "decay_type"}
"""Keys of Global, with `use_ema`, and their names in a preset."""

USED: Final = frozenset(
    {
        "d2s_train_image_shape",
        "epoch_num",
        "max_text_length",
        "character_dict_path",
        "model_name",
        "pdx_model_name",
        "use_amp",
        "use_ema",
    }
    | AMP.keys()
    | EMA.keys()
)
"""Keys of Global that RecTrain reads."""

DEFAULTS: Final[dict[str, Any]] = {
    "Global": {
        "model_name": None,
        "pretrained_model": None,
        "checkpoints": None,
        "save_model_dir": None,
        "character_dict_path": None,
        "seed": 0,
        "use_amp": False,
        "amp_level": "O2",
        "amp_dtype": "float16",
        "amp_custom_black_list": [],
        "amp_custom_white_list": [],
        "scale_loss": 1.0,
        "use_dynamic_loss_scaling": False,
        "use_ema": False,
        "ema_decay": 0.9998,
        "ema_gamma": 2000,
        "ema_decay_type": "threshold",
    },
    "Optimizer": {"clip_norm_global": 0.0},
}
"""Keys that an override may set though a config lacks them, with upstream's defaults."""

PATHS: Final = frozenset(
    {
        "character_dict_path",
        "checkpoints",
        "data_dir",
        "infer_img",
        "label_file_list",
        "pretrained_model",
        "save_inference_dir",
        "save_model_dir",
        "save_res_path",
    }
)
"""Last parts of keys that hold places: any text."""
FRACTIONS: Final = frozenset(
    {"learning_rate", "factor", "beta1", "beta2", "epsilon", "weight_decay", "end_lr"}
)
"""Last parts of keys that hold fractions, even where a config says 0 or 1."""

STUDENTS: Final = {
    "MobileNetV1Enhance": "PP-OCRv3_mobile_rec.yml (ch_PP-OCRv3_rec.yml in 2.x)",
    "PPLCNetV3": "PP-OCRv4_mobile_rec.yml (ch_PP-OCRv4_rec.yml in 2.x)",
    "SVTRv2": "ch_SVTRv2_rec.yml",
    "RepSVTR": "ch_RepSVTR_rec.yml",
}
"""Backbones of upstream's distilled students, and the config that trains one alone."""
