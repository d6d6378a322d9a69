"""Messages of a run by a config of PaddleOCR: they name the config's keys instead of a job's fields.

Set up by the child. Whoever writes a message needs to know nothing of it.
"""

import logging
import re
from typing import Final

_KEYS: Final = {
    "checkpoint.uri": "Global.save_model_dir",
    "data.dictionary": "Global.character_dict_path",
    "data.eval": "Eval.dataset",
    "data.evalFiles": "Eval.dataset",
    "data.train": "Train.dataset",
    "data.trainFiles": "Train.dataset",
    "model.pretrained": "Global.pretrained_model",
    "model.pretrained.uri": "Global.pretrained_model",
    "replicas.gpusPerNode": "Global.use_gpu",
    "training.batchSize": "Train.loader.batch_size_per_card",
    "training.epochs": "Global.epoch_num",
    "training.evalInterval": "Global.eval_batch_step",
    "training.learningRate": "Optimizer.lr.learning_rate",
    "training.seed": "Global.seed",
    "training.workers": "Train.loader.num_workers",
}
_WITHOUT_KEY: Final = {
    "name it in model.pretrained.dictionary": "start from the folder of a run, which knows its own",
}
"""What a config has no key for, said otherwise."""
_ANY: Final = "|".join(re.escape(key) for key in sorted(_KEYS, key=len, reverse=True))
_FIELD: Final = re.compile(rf"(?<![\w./])(?:spec\.)?({_ANY})(?![\w/])")
_OF_CONFIG: Final = re.compile(r"(?<![\w./])model\.config\.(?=[A-Z])| \(model\.overrides(?:\.augment)?\)")


def in_upstream_words(text: str) -> str:
    """A sentence with the config's keys. Pure."""
    for phrase, other in _WITHOUT_KEY.items():
        text = text.replace(phrase, other)
    return _OF_CONFIG.sub("", _FIELD.sub(lambda found: _KEYS[found[1]], text))


class UpstreamWords(logging.Filter):
    """On a handler: what passes it is said so."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record."""
        record.msg, record.args = in_upstream_words(record.getMessage()), ()
        return True
