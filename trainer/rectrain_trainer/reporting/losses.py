"""What upstream's training would lose of the data, as the page's table. Pure; called by `page`."""

from collections.abc import Iterator

from rectrain_trainer.reporting.gather import Lost, Run


def losses(run: Run) -> Iterator[tuple[str, str, str]]:
    """(what, what upstream's training would do, what we do)"""
    upstream, checks = run.about.checks.upstream, run.about.checks
    if upstream is None:
        return
    refused = {
        "Warn": f"left out, and said so ({checks.left_out:,})",
        "Strict": "refused before the first step",
    }.get(checks.validation, "an error when it is met")
    for name, lost in (("training", upstream.train), ("evaluation", upstream.eval)):
        yield from _losses_of(name, lost, refused)
    for ranks, never in sorted(upstream.never_seen_by_ranks.items(), key=lambda item: len(item[0])):
        if never:
            yield (
                f"Training images on {ranks} GPUs",
                f"about {never:,} never seen in the {upstream.never_seen_in}",
                "each seen once an epoch",
            )


def _losses_of(name: str, lost: Lost, refused: str) -> Iterator[tuple[str, str, str]]:
    training = name == "training"
    other = "another sample in its place" if training else "the next one counted twice"
    if lost.dropped:
        kept = refused if training else "compared whole: an error of the model"
        yield f"Labels of the {name} set that it drops", f"{lost.dropped:,} dropped, {other}", kept
    if lost.unreadable:
        yield f"Images of the {name} set that don't open", f"{lost.unreadable:,} skipped, {other}", refused
    if lost.shortened:
        kept = refused if training else "compared whole"
        what = f"{lost.shortened:,} shortened by {lost.characters:,} characters"
        yield f"Labels of the {name} set with unknown characters", what, kept
    if lost.spaced and not training:
        yield (
            "Labels of the evaluation set with spaces",
            f"{lost.spaced:,} compared without them",
            "compared whole",
        )
