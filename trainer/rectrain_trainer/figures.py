"""The figures of one evaluation: as rows, status and report name them, and in words. Pure.

Made by evaluate; used by the train stage and by publish.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rectrain_trainer.misread import Misread, worst_of
from rectrain_trainer.scores import Tally, by_character, by_length, confusions
from rectrain_trainer.upstream_scores import UpstreamTally

GAP: Final = 0.01
"""From here on a difference between our accuracy and upstream's is explained."""

MEANING: Final = {
    "accuracy": "Share of images whose whole label is read exactly, spaces and characters outside the "
    "dictionary included, with images prepared as for inference (ratio kept).",
    "accuracyAsTrained": "The same with images squeezed to the width that the model was trained on.",
    "characterErrorRate": "Characters that are wrong, missing or too many, over those of all labels.",
    "normEditDistance": "1 less the mean of edit distances, each over the longer text's length.",
    "graphemeErrorRate": "characterErrorRate, with a letter and its marks as one character.",
    "graphemeNormEditDistance": "normEditDistance, likewise.",
    "upstreamAcc": "What PaddleOCR's own evaluation calls acc: images squeezed to the training width, spaces "
    "ignored, characters outside the dictionary taken out of the labels, refused labels replaced by the "
    "next sample.",
    "upstreamNormEditDis": "What PaddleOCR's own evaluation calls norm_edit_dis, over the same as acc.",
}


@dataclass
class Found:
    """What some images of the evaluation set say of a model; those of all ranks are merged."""

    tally: Tally = field(default_factory=Tally)
    """With the preprocessing of inference."""
    exact_as_trained: int = 0
    squeezed: int = 0
    """Images that differ between inference and training: training squeezes them."""
    upstream: UpstreamTally = field(default_factory=UpstreamTally)
    worst: list[Misread] = field(default_factory=list)
    """The samples that are read worst."""

    def merge(self, other: "Found") -> None:
        self.tally.merge(other.tally)
        self.exact_as_trained += other.exact_as_trained
        self.squeezed += other.squeezed
        self.upstream.merge(other.upstream)
        self.worst = worst_of([*self.worst, *other.worst])

    def to_json(self) -> dict[str, Any]:
        """For another process: `of` makes the same of it."""
        return {
            "tally": self.tally.to_json(),
            "exactAsTrained": self.exact_as_trained,
            "squeezed": self.squeezed,
            "upstream": self.upstream.to_json(),
            "worst": self.worst,
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Found":
        return cls(
            Tally.of(content["tally"]),
            content["exactAsTrained"],
            content["squeezed"],
            UpstreamTally(*content["upstream"]),
            [Misread(*one) for one in content["worst"]],
        )


@dataclass(frozen=True)
class Evaluation:
    """Results on the whole evaluation set."""

    accuracy: float
    accuracy_as_trained: float
    character_error_rate: float
    norm_edit_distance: float
    grapheme_error_rate: float
    grapheme_norm_edit_distance: float
    upstream_acc: float | None
    """None where upstream would refuse every label."""
    upstream_norm_edit_dis: float | None
    samples: int
    found: Found
    cut: int
    """Labels with characters that the dictionary lacks, which upstream takes out of the truth."""
    replaced: int
    """Labels in whose place upstream counts another sample."""

    @classmethod
    def of(cls, found: Found, *, cut: int, replaced: int) -> "Evaluation":
        """Of what was found in all samples; there must be some."""
        tally = found.tally
        acc, distance = found.upstream.figures() or (None, None)
        return cls(
            accuracy=tally.accuracy,
            accuracy_as_trained=found.exact_as_trained / tally.samples,
            character_error_rate=tally.points.error_rate,
            norm_edit_distance=tally.points.normalised,
            grapheme_error_rate=tally.clusters.error_rate,
            grapheme_norm_edit_distance=tally.clusters.normalised,
            upstream_acc=acc,
            upstream_norm_edit_dis=distance,
            samples=tally.samples,
            found=found,
            cut=cut,
            replaced=replaced,
        )

    def figures(self) -> dict[str, Any]:
        """Under their names; no row of training has one of these."""
        return {
            "accuracy": self.accuracy,
            "accuracyAsTrained": self.accuracy_as_trained,
            "characterErrorRate": self.character_error_rate,
            "normEditDistance": self.norm_edit_distance,
            "graphemeErrorRate": self.grapheme_error_rate,
            "graphemeNormEditDistance": self.grapheme_norm_edit_distance,
            "upstreamAcc": self.upstream_acc,
            "upstreamNormEditDis": self.upstream_norm_edit_dis,
            "samples": self.samples,
        }

    @property
    def sentence(self) -> str:
        return f"accuracy {self.accuracy:.1%}, CER {self.character_error_rate:.1%}"

    def gap(self) -> str:
        """Why upstream's acc is another number than our accuracy, in a sentence; "" when it hardly is."""
        if self.upstream_acc is None or abs(self.upstream_acc - self.accuracy) <= GAP:
            return ""
        squeezed, spaces = self.found.squeezed, self.found.tally.space_only
        reasons = [
            f"squeezes images to the width of training ({squeezed} are wider)" if squeezed else "",
            f"ignores spaces ({spaces} differ in them alone)" if spaces else "",
            f"takes characters outside the dictionary out of labels ({self.cut} have some)"
            if self.cut
            else "",
            f"counts the next sample in place of labels that it refuses ({self.replaced})"
            if self.replaced
            else "",
        ]
        told = "; it ".join(reason for reason in reasons if reason)
        return (
            f"PaddleOCR's own evaluation would say acc {self.upstream_acc:.1%} of these weights: it {told}."
        )


def quality(evaluation: Evaluation) -> dict[str, Any]:
    """The report's section on what is read, and what isn't."""
    tally, names = evaluation.found.tally, evaluation.figures()
    return {
        "figures": {name: {"value": names[name], "meaning": text} for name, text in MEANING.items()},
        "gap": evaluation.gap() or None,
        "spaceOnlyErrors": tally.space_only,
        "imagesSqueezedInTraining": evaluation.found.squeezed,
        "confusions": confusions(tally),
        "byLength": by_length(tally),
        "byCharacter": by_character(tally),
    }
