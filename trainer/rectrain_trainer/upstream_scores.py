"""What PaddleOCR's own evaluation would print as `acc` and `norm_edit_dis` for the same model and labels.

Called by evaluate, beside our own figures: so that the two can be compared, and the gap explained. Its truth
is the label decoded back from its encoding, where characters that the dictionary lacks have vanished; labels
that its encoder refuses (empty, too long, wholly unknown) are replaced by the next sample; spaces are
ignored. Its own encoder, decoder and metric do it here too. A test holds this to its real evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rectrain_trainer import upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.model import build_decoder, written_dictionary


@dataclass
class UpstreamTally:
    """What its metric sums up, over all samples that it counts."""

    correct: int = 0
    counted: int = 0
    distance: float = 0.0
    """Sum of normalised edit distances."""

    def add(self, pairs: Sequence[tuple[str, str]]) -> None:
        """(truth, reading) pairs, by its metric with the settings that it has when nobody sets any."""
        metric = _metric()
        metric(([(read, 1.0) for _, read in pairs], [(truth, 1.0) for truth, _ in pairs]))
        self.merge(UpstreamTally(metric.correct_num, metric.all_num, float(metric.norm_edit_dis)))

    def merge(self, other: "UpstreamTally") -> None:
        """Sum up what another one has too."""
        self.correct += other.correct
        self.counted += other.counted
        self.distance += other.distance

    def figures(self) -> tuple[float, float] | None:
        """`acc` and `norm_edit_dis`; None where it would find no label to evaluate on, and never end."""
        if not self.counted:
            return None
        metric = _metric()
        metric.correct_num, metric.all_num, metric.norm_edit_dis = self.correct, self.counted, self.distance
        said = metric.get_metric()
        return float(said["acc"]), float(said["norm_edit_dis"])

    def to_json(self) -> list[Any]:
        return [self.correct, self.counted, self.distance]


class UpstreamLabels:
    """Labels of one evaluation set as its evaluation sees them."""

    def __init__(self, recipe: Recipe, labels: Sequence[str]) -> None:
        written = written_dictionary(recipe.characters, use_space_char=recipe.use_space_char)
        with written as section:
            [(name, arguments)] = recipe.label_encode.items()
            chain = [{name: {**(arguments or {}), "max_text_length": recipe.max_text_length}}]
            [encoder] = upstream.load().create_operators(chain, section)
        decoder = build_decoder(recipe.characters, use_space_char=recipe.use_space_char)
        known = {label: _decoded(encoder, decoder, label) for label in set(labels)}
        self._truths = [known[label] for label in labels]
        self._times = times_counted([truth is not None for truth in self._truths])
        self.replaced = self._truths.count(None)
        """Labels that it refuses: another sample counts in their place."""
        self.cut = sum(
            truth is not None and len(truth.replace(" ", "")) < len(label.replace(" ", ""))
            for truth, label in zip(self._truths, labels, strict=True)
        )
        """Labels that lose characters."""

    def pairs(self, positions: Sequence[int], readings: Sequence[str]) -> list[tuple[str, str]]:
        """(truth, reading), each as often as it counts, of these samples and what is read in them."""
        return [
            (truth, reading)
            for i, reading in zip(positions, readings, strict=True)
            if (truth := self._truths[i]) is not None
            for _ in range(self._times[i])
        ]


def times_counted(accepted: Sequence[bool]) -> list[int]:
    """How often each sample counts: once for itself, and once for each refused one right before it.

    After the last sample the first one follows. Pure.
    """
    times = [0] * len(accepted)
    if not any(accepted):
        return times
    follower = accepted.index(True)
    for i in reversed(range(len(accepted))):
        follower = i if accepted[i] else follower
        times[follower] += 1
    return times


def _decoded(encode: upstream.Operator, decoder: Any, label: str) -> str | None:
    encoded = encode({"image": None, "label": label})
    if encoded is None:
        return None
    indices = encoded["label_ctc" if "label_ctc" in encoded else "label"][: int(encoded["length"])]
    return str(decoder.decode(np.array([indices]))[0][0])


def _metric() -> Any:
    return upstream.load().build_metric({"name": "RecMetric", "main_indicator": "acc"})
