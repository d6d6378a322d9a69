"""What the check stage found, and how it is told: in status, report.json, and by `check` on stdout. Pure."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic.alias_generators import to_camel

from rectrain_api.status import FINDINGS_KEPT, DataStatus, FindingStatus
from rectrain_data.findings import Finding
from rectrain_data.upstream_losses import RANKS, Losses, never_seen
from rectrain_trainer.stage import Staged
from rectrain_trainer.words import many

STATUS_MESSAGE: Final = 600
"""Characters: a label in it may be long, and sixteen of these have to fit into a report."""
_OURS: Final[dict[str, str]] = {
    "Strict": "refuses them, each by its place",
    "Warn": "leaves them out of training, and says so",
}


@dataclass(frozen=True)
class Found:
    """All of it, in the user's words: places are places in S3."""

    staged: Staged
    """Without what is left out."""
    validation: Literal["Strict", "Warn", "Off"]
    train_samples: int
    eval_samples: int
    left_out: int
    findings: list[Finding]
    samples: int
    """Looked at: none where validation is Off."""
    decoded: int
    train_losses: Losses | None
    eval_losses: Losses | None
    multi_scale: bool
    """Whether upstream would deal out samples by its MultiScaleSampler."""

    def also(self, finding: Finding) -> "Found":
        """With a finding of what came later."""
        return dataclasses.replace(self, findings=[*self.findings, finding])

    def sentence(self) -> str:
        """What was looked at, and what is left out."""
        if self.validation == "Off":
            left_out = f"; {self._lines_left_out()} left out" if self.left_out else ""
            return f"Neither labels nor images were looked at (data.validation: Off){left_out}"
        if not self.samples:
            return "There is no sample that could be looked at"
        looked = f"Checked {many(self.samples, 'sample')}: every label, and every image"
        if self.decoded < self.samples:
            looked += (
                f"'s first and last bytes; {self.decoded:,} images, spread evenly, were decoded (a damaged "
                "one among the others would end the run when it is met)"
            )
        else:
            looked += ", decoded"
        if self.validation == "Warn":
            looked += f"; {self.left_out:,} left out"
        return looked

    def verdict(self) -> str:
        """What it comes to where nothing is refused."""
        if self.validation == "Off":
            left_out = f", but for {self._lines_left_out()} left out" if self.left_out else ""
            return f"model and S3 are fine, the data wasn't looked at{left_out}"
        if not any(f.is_error and not f.is_of_schedule for f in self.findings):
            return "data, model and S3 are fine"
        left_out = (
            f"{many(self.left_out, 'sample')} left out" if self.left_out else "what was found, all kept"
        )
        return f"model and S3 are fine, and so is the data but for {left_out}"

    def _lines_left_out(self) -> str:
        return f"{many(self.left_out, 'line')} of label files (no sample, or no image there)"

    def status(self) -> DataStatus:
        """As status shows it."""
        return DataStatus(
            train_samples=self.train_samples,
            eval_samples=self.eval_samples,
            left_out=self.left_out,
            findings=[
                FindingStatus(
                    code=f.code,
                    severity="Error" if f.is_error else "Warning",
                    count=f.count,
                    message=_cut(f"{f}."),
                )
                for f in self.findings[:FINDINGS_KEPT]
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """As report.json and `check --json` have it."""
        return {
            **self.status().to_dict(),
            "validation": self.validation,
            "checked": self.samples,
            "imagesDecoded": self.decoded,
            "upstream": self._upstream(),
        }

    def _upstream(self) -> dict[str, Any] | None:
        if self.train_losses is None or self.eval_losses is None:
            return None
        seen = {str(ranks): never_seen(self.train_losses.samples, ranks) for ranks in RANKS}
        return {
            "train": _losses(self.train_losses),
            "eval": _losses(self.eval_losses),
            "neverSeenByRanks": seen,
            "neverSeenIn": "run" if self.multi_scale else "epoch",
        }

    def to_json(self) -> str:
        """One object."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    def to_text(self) -> str:
        """For a person."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        shown = self.validation == "Warn" or (self.validation == "Off" and self.left_out)
        left_out = f"; {self.left_out:,} left out" if shown else ""
        yield f"{self.train_samples:,} samples to train on, {self.eval_samples:,} to evaluate on{left_out}."
        yield f"{self.sentence()}."
        if self.findings:
            yield "Findings:"
        elif self.validation != "Off":
            yield "Nothing was found to be wrong."
        for finding in self.findings:
            yield f"  {'error' if finding.is_error else 'warning'} {finding}"
            yield from (f"    also at {place}" for place in finding.places[1:])
        if not (self.train_losses and self.eval_losses and self.train_losses.samples):
            return
        yield "PaddleOCR's own training would do this with the same data, and say nothing:"
        if self.staged.passed_over:
            yield f"  (without {many(self.staged.passed_over, 'line')} whose faults stand above)"
        if any(part.swapped == part.samples for part in (self.train_losses, self.eval_losses)):
            yield "  It would end in a RecursionError: a bad sample has no good one to be swapped for."
            return
        yield f"  training set, {self.train_losses.samples:,} samples"
        yield from self._training_lines(self.train_losses)
        yield f"  evaluation set, {self.eval_losses.samples:,} samples"
        yield from self._evaluation_lines(self.eval_losses)

    def _training_lines(self, losses: Losses) -> Iterator[str]:
        swapped = "swapped for another sample, every time"
        if losses.dropped:
            yield f"    {many(losses.dropped, 'label')} dropped{_why(losses)}, {swapped}"
        if losses.unreadable:
            yield f"    {many(losses.unreadable, 'image')} unreadable, {swapped}"
        if losses.shortened:
            lost = many(losses.characters, "character")
            yield f"    {many(losses.shortened, 'label')} shortened by {lost}"
        if losses.swapped or losses.shortened:
            yield f"      RecTrain {_OURS[self.validation]}."
        else:
            yield "    no label or image lost"
        seen = " / ".join(f"{never_seen(losses.samples, ranks):,}" for ranks in RANKS)
        when = "in the whole run" if self.multi_scale else "in each epoch"
        gpus = " / ".join(map(str, RANKS))
        yield f"    about {seen} samples never seen {when} on {gpus} GPUs (PaddleOCR 3.7)"
        yield "      RecTrain shows each sample once an epoch, on one of the GPUs."

    def _evaluation_lines(self, losses: Losses) -> Iterator[str]:
        if not (losses.swapped or losses.shortened or losses.spaced):
            yield "    no label or image lost"
            return
        if losses.swapped:
            causes = f"{many(losses.dropped, 'label')}, {many(losses.unreadable, 'image')}"
            yield f"    {many(losses.swapped, 'sample')} ({causes}) swapped for the next, which counts twice"
        if losses.shortened:
            lost = many(losses.characters, "character")
            yield f"    {many(losses.shortened, 'label')} compared without {lost}"
        if losses.spaced:
            yield f"    {many(losses.spaced, 'label')} compared without spaces"
        if losses.dropped or losses.shortened or losses.spaced:
            yield "      RecTrain compares whole labels: what the model can't write is an error of the model."


def _cut(message: str) -> str:
    return message if len(message) <= STATUS_MESSAGE else message[: STATUS_MESSAGE - 1] + "…"


def _why(losses: Losses) -> str:
    if not losses.dropped:
        return ""
    return f" ({losses.empty:,} empty, {losses.too_long:,} too long, {losses.unknown:,} wholly unknown)"


def _losses(losses: Losses) -> dict[str, int]:
    return {
        **{to_camel(name): value for name, value in dataclasses.asdict(losses).items()},
        "dropped": losses.dropped,
        "swapped": losses.swapped,
    }
