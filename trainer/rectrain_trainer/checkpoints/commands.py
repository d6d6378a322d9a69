"""The commands themselves. S3 is reached with the AWS_* names of the environment, or an AWS profile.

Data goes to stdout, progress and messages to stderr.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from rectrain_api.base import ApiModel
from rectrain_api.errors import DatasetInvalid
from rectrain_data.console import human, progress, say_retry
from rectrain_data.interrupts import Interrupts
from rectrain_trainer.checkpoints import pull as pulling
from rectrain_trainer.checkpoints import verify as verifying
from rectrain_trainer.checkpoints.listing import listing_of, read_run
from rectrain_trainer.checkpoints.tables import show
from rectrain_trainer.ending import ending_in_a_sentence
from rectrain_trainer.place import open_named, reached_training

INTERRUPTED: Final = "Interrupted: nothing that looks whole and isn't was left behind."

app = typer.Typer(
    help="Look into a run's place in S3: list it, verify every byte, download a checkpoint.",
    no_args_is_help=True,
)
Uri = Annotated[
    str,
    typer.Argument(
        help="The run's place (checkpoint.uri), such as s3://bucket/runs/x; or a local run's folder."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Say more, with tracebacks.")]


@app.command()
def ls(uri: Uri, as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what the run's log says: attempts, checkpoints, which is best, what came out of it."""
    with ending_in_a_sentence(debug, INTERRUPTED):
        store = open_named(uri, say_retry)
        records, state = read_run(store)
        listing = listing_of(store.uri, records, state, partial(reached_training, store))
        if as_json:
            _print_json(listing)
        else:
            show(listing)


@app.command()
def verify(uri: Uri, as_json: AsJson = False, debug: Debug = False) -> None:
    """Read every byte of every checkpoint and of the exported model. Exit 65 if anything is damaged."""
    with ending_in_a_sentence(debug, INTERRUPTED) as interrupts:
        store = open_named(uri, say_retry)
        _, state = read_run(store)
        items = verifying.items_of(state)
        with progress("Verifying", sum(item.file.size for item in items), unit="bytes") as advance:
            found = verifying.verify(store, state, items, _until_interrupted(advance, interrupts))
        if as_json:
            _print_json(found)
        else:
            for line in _lines_of(found):
                typer.echo(line)
        if not found.whole:
            raise DatasetInvalid(_verdict(found))


@app.command()
def pull(
    uri: Uri,
    dest: Annotated[
        Path | None, typer.Argument(help="Folder to make; by default named after run and step.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="best, latest or a step; by default the best, else the latest."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Download one checkpoint, checked; its folder appears when it is whole."""
    with ending_in_a_sentence(debug, INTERRUPTED):
        store = open_named(uri, say_retry)
        _, state = read_run(store)
        record = pulling.choose(state, checkpoint, store.uri)
        folder = dest or pulling.default_folder(state, record)
        with progress(f"Downloading step {record.step}", record.bytes, unit="bytes") as advance:
            pulled = pulling.pull(store, record, folder, advance)
        if as_json:
            _print_json(pulled)
            return
        accuracy = "" if pulled.accuracy is None else f", accuracy {pulled.accuracy:.1%}"
        what = f"step {pulled.step} (epoch {pulled.epoch}{accuracy})"
        typer.echo(f"{pulled.folder} holds {what}, {human(pulled.bytes)}.")
        option = shlex.quote(f"Global.pretrained_model={pulled.pretrained_model}")
        typer.echo(f"PaddleOCR's own tools load it with -o {option}")


def _until_interrupted(advance: Callable[[int], None], interrupts: Interrupts) -> Callable[[int], None]:
    """Ends the threads that read: a large file takes its time."""

    def advance_or_end(amount: int) -> None:
        if interrupts.asked:
            raise KeyboardInterrupt
        advance(amount)

    return advance_or_end


def _lines_of(found: verifying.Verification) -> Iterator[str]:
    for problem in found.problems:
        of = "the exported model" if problem.checkpoint is None else f"step {problem.checkpoint}"
        yield f"{of}\t{problem.file} {problem.problem}"
    for row in found.damaged:
        yield f"log\t{row.record} {row.problem}"
    if not found.problems:
        yield f"All {found.files} files of {found.place} are whole ({human(found.bytes)})."
    yield found.resume


def _verdict(found: verifying.Verification) -> str:
    files = f"{len(found.problems)} of {found.files} files" if found.problems else ""
    records = f"{len(found.damaged)} record(s) of the log" if found.damaged else ""
    return f"{' and '.join(filter(None, (files, records)))} of {found.place} are damaged or missing."


def _print_json(document: ApiModel) -> None:
    typer.echo(json.dumps(document.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False))
