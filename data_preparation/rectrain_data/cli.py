"""`rectrain-data`: make, convert, pack, list and upload labelled images.

Data goes to stdout, progress and messages to stderr; errors are one sentence and exit by the table in
`rectrain_api.exit_codes`. Ctrl-C leaves nothing that looks whole and isn't.
"""

import errno
import json
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from rectrain_api.errors import RectrainError
from rectrain_api.exit_codes import EX_USAGE, outcome_of
from rectrain_data import convert as conversion
from rectrain_data import demo as digits
from rectrain_data import dictionary as dictionaries
from rectrain_data import upload as uploading
from rectrain_data.console import human, progress, say, say_retry
from rectrain_data.dictionary import Dictionary
from rectrain_data.interrupts import Interrupts
from rectrain_data.listing import Listing, list_set
from rectrain_data.packed import MIB, PackedIndex
from rectrain_data.samples import SampleSet
from rectrain_data.split import DEFAULT_EVAL_FRACTION
from rectrain_data.transfer import Retries, S3Options, open_store
from rectrain_data.transfer.files import local_error
from rectrain_data.wholeness import refuse_existing

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Prepare labelled images for RecTrain: make, convert, pack, list, upload.",
    epilog="--debug, anywhere, shows the traceback of an error.",
)
DEBUG = "--debug"
_INTERRUPTED = 130  # what Typer exits with on Ctrl-C
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_TYPER_USAGE = 2
_DEMO_HEIGHT = 32
_FROM_LABELS = "FromLabels"  # as data.dictionary of a RecTrainingJob has it

Target = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; it must not exist yet.")]
Height = Annotated[int, typer.Option(min=8, max=512, help="Height that the model trains at [px].")]
Reader = Annotated[
    str, typer.Option("--from", help="Format of the source; paddle is PaddleOCR's label file.")
]
EvalFraction = Annotated[
    float, typer.Option(min=0.0, max=0.5, help="Part held out for evaluation, chosen by hash; 0 for none.")
]
EvalSource = Annotated[
    Path | None, typer.Option("--eval", help="Evaluation samples of their own, instead of a part held out.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed holds out another part.")]
DictionaryName = Annotated[
    str | None,
    typer.Option(
        "--dictionary", help="File of one character a line, or a name of PaddleOCR's. Else: from labels."
    ),
]
ShardSize = Annotated[int, typer.Option(min=64, max=256, help="Largest shard [MiB].")]
Source = Annotated[Path, typer.Argument(help="Label file, or the folder that holds it as labels.txt.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write loose/ and packed/ into.")],
    count: Annotated[int, typer.Option(min=2, max=1_000_000, help="Images.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Make labelled images of digits, loose and packed with an 80/20 split."""
    for part in ("loose", "packed"):
        refuse_existing(out / part)
    with progress("Making images", count) as advance:
        labels = digits.make(out / "loose", count=count, seed=seed, progress=advance)
    _pack(conversion.read_source(labels, "paddle"), out / "packed", conversion.PackOptions(_DEMO_HEIGHT))


@app.command()
def convert(
    source: Source,
    output: Target,
    height: Height = 32,
    reader: Reader = "paddle",
    packed: Annotated[bool, typer.Option("--packed", help="Write a packed set, as pack does.")] = False,
) -> None:
    """Resize images to the training height, in PaddleOCR's label format or packed."""
    refuse_existing(output)
    samples = conversion.read_source(source, reader)
    if packed:
        _pack(samples, output, conversion.PackOptions(height))
        return
    with progress("Converting", len(samples)) as advance:
        count = conversion.to_loose(samples, output, height, advance)
    say(f"{count:,} samples in {output / conversion.LABELS}")


@app.command()
def pack(
    source: Source,
    output: Target,
    height: Height = 32,
    reader: Reader = "paddle",
    eval_source: EvalSource = None,
    eval_fraction: EvalFraction = DEFAULT_EVAL_FRACTION,
    seed: Seed = 0,
    dictionary: DictionaryName = None,
    shard_size: ShardSize = 128,
) -> None:
    """Pack labelled images at the training height into shards, split and with a dictionary."""
    refuse_existing(output)
    samples = conversion.read_source(source, reader)
    held_out = conversion.read_source(eval_source, reader) if eval_source else None
    chosen = _dictionary(dictionary)
    options = conversion.PackOptions(height, eval_fraction, seed, chosen, shard_size * MIB)
    _pack(samples, output, options, held_out)


@app.command()
def ls(
    place: Annotated[str, typer.Argument(help="Folder, label file, or s3:// URI of a packed set.")],
    samples: Annotated[int, typer.Option(min=0, max=100, help="Samples of each split to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say what a set holds, reading its index only."""
    retries = Retries(on_retry=say_retry)
    listing = list_set(place, _options() if place.startswith("s3://") else None, samples, retries)
    typer.echo(json.dumps(listing.to_dict(), ensure_ascii=False, indent=2) if as_json else _table(listing))


@app.command()
def upload(
    source: Annotated[Path, typer.Argument(help="Packed set, label file, or folder that holds labels.txt.")],
    uri: Annotated[str, typer.Argument(help="Where to: s3://bucket/folder.")],
) -> None:
    """Put a set into S3, checked by sha256; what is there already is skipped."""
    options = _options()
    store = open_store(uri, options, Retries(on_retry=say_retry))
    say(options.describe())
    sending = uploading.plan(source)
    with progress("Uploading", sending.total_bytes, unit="bytes") as advance:
        sent = uploading.send(sending, store, advance)
    say(f"{store.uri} holds {sending.total_bytes:,} bytes; {sent:,} had to be sent.")


def _pack(
    samples: SampleSet,
    output: Path,
    options: conversion.PackOptions,
    held_out: SampleSet | None = None,
) -> None:
    with progress("Packing", len(samples) + (len(held_out) if held_out else 0)) as advance:
        index = conversion.to_packed(samples, output, options, held_out, advance)
    say(f"{output}: {_summary(index)}")


def _summary(index: PackedIndex) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in index.counts.items() if count)
    return f"{counts}; {len(index.shards)} shards, {human(index.total_bytes)}"


def _dictionary(name: str | None) -> Dictionary | None:
    if name in (None, _FROM_LABELS):
        return None
    return dictionaries.read(Path(name)) if Path(name).is_file() else dictionaries.builtin(name)


def _options() -> S3Options:
    return S3Options.from_environment()


def _table(listing: Listing) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in listing.counts.items())
    size = f", {human(listing.total_bytes)} in {listing.shards} shards" if listing.total_bytes else ""
    height = f", {listing.height} px high" if listing.height else ""
    lines = [
        f"{listing.place}\t{listing.kind}",
        f"samples\t{counts}{size}{height}",
        f"labels\t{listing.characters} characters, at most {listing.max_label_length} long",
    ]
    return "\n".join([*lines, *(f"{s.split}\t{s.name}\t{s.label}" for s in listing.samples)])


def run(arguments: list[str]) -> int:
    """One command line; the exit status."""
    debug = DEBUG in arguments
    try:
        app(args=[a for a in arguments if a != DEBUG], prog_name="rectrain-data")
    except SystemExit as exc:
        if exc.code == _INTERRUPTED:
            say("Interrupted: nothing that looks whole and isn't was left behind.")
            return _INTERRUPTED
        return EX_USAGE if exc.code == _TYPER_USAGE else int(exc.code or 0)
    except Exception as exc:
        if debug:
            traceback.print_exception(exc)
        error = _meant(exc)
        known = isinstance(error, RectrainError)
        say(
            f"Error: {error}"
            if known
            else f"Error: {type(exc).__name__}: {exc} (a fault of ours; see {DEBUG})."
        )
        return outcome_of(error).exit_code
    return 0


def _meant(error: Exception) -> Exception:
    """An error of the disk that nobody foresaw is one of ours all the same."""
    if isinstance(error, OSError) and (isinstance(error.filename, str) or error.errno in _DISK_FULL):
        return local_error(error, Path(error.filename or "the output"))
    return error


def main() -> None:
    """Entry point."""
    interrupts = Interrupts()
    interrupts.install()
    status = run(sys.argv[1:])
    sys.exit(interrupts.status if status == _INTERRUPTED else status)
