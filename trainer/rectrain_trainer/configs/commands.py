"""The commands themselves. Data goes to stdout, messages to stderr; nothing reaches S3."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from rectrain_data.dictionary import builtin_names, not_there
from rectrain_trainer.configs import named, tables
from rectrain_trainer.ending import ending_in_a_sentence

app = typer.Typer(
    help="Look at models: the presets, or a config of PaddleOCR's before it is trained.", no_args_is_help=True
)
What = Annotated[
    str, typer.Argument(help="A preset, one of PaddleOCR's names, or the file of a config (.yml).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", help="KEY=VALUE, as model.overrides has it; may be given again."),
]
_ON_A_LAPTOP: Final = (
    "That is so for a RecTrainingJob. `rectrain-trainer run -c` takes data, folder, evaluation interval and "
    "devices from the config itself."
)
_SIZES: Final = Path(__file__).parents[1] / "preset_sizes.yaml"
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Say more, with tracebacks.")]


@app.command("list")
def list_(as_json: AsJson = False, debug: Debug = False) -> None:
    """Every preset with its size, and PaddleOCR's names for them."""
    with ending_in_a_sentence(debug):
        if as_json:
            _print_json(tables.rows_of_presets(_sizes()))
        else:
            tables.show_presets(_sizes())


@app.command()
def show(what: What, override: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """A model as it is trained: aliases and overrides resolved."""
    with ending_in_a_sentence(debug):
        found = named.find(what, named.parse_overrides(override or [])).to_dict()
        if as_json:
            _print_json(found)
        else:
            typer.echo(named.to_yaml(found), nl=False)


@app.command()
def diff(one: What, other: What, as_json: AsJson = False, debug: Debug = False) -> None:
    """What differs between two models, resolved."""
    with ending_in_a_sentence(debug):
        rows = tables.differences(named.find(one).to_dict(), named.find(other).to_dict())
        if as_json:
            _print_json([{"key": key, "values": [left, right]} for key, left, right in rows])
        else:
            tables.show_differences((one, other), rows)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="The file of a config of PaddleOCR (.yml).")],
    override: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Whether a config can be trained, and what of it decides nothing. Exit 78 says why not.

    The model is built by PaddleOCR's code, with a small dictionary.
    """
    with ending_in_a_sentence(debug):
        found = named.find(str(file), named.parse_overrides(override or []))
        count = _parameters(found)
        if as_json:
            used = found.to_dict() | {"parameters": count}
            _print_json({"used": used, "notes": [note.to_dict() for note in found.notes]})
            return
        for line in _said_of(found, count):
            typer.echo(line)
        for kind in ("Replaced", "Unused"):
            rows = [[note.key, note.why] for note in found.notes if note.what == kind]
            if rows:
                typer.echo()
                tables.show_rows([kind.lower(), "by" if kind == "Replaced" else "since"], rows)
        typer.echo(f"\n{_ON_A_LAPTOP}")


@app.command()
def preview(
    what: Annotated[str, typer.Argument(help="A preset, a config's file, or the manifest of a job.")],
    data: Annotated[
        Path, typer.Option("--data", help="A label file, or the folder of a packed set; on this machine.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write (.png).")],
    dictionary: Annotated[
        str | None,
        typer.Option("--dictionary", help="A file, or one of PaddleOCR's; by default the model's own."),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, max=200, help="Images of each batch.")] = 12,
    epoch: Annotated[int, typer.Option("--epoch", min=1, help="The epoch to draw them of.")] = 1,
    font: Annotated[Path | None, typer.Option("--font", help="Font of the labels (.ttf, .otf).")] = None,
    debug: Debug = False,
) -> None:
    """The batches that are trained on, as a picture with their labels: after augmentation, in each size."""
    with ending_in_a_sentence(debug):
        from rectrain_trainer.configs import preview as previewing

        drawn = previewing.preview(
            named.find(what), data, output, dictionary=dictionary, images=images, epoch=epoch, font=font
        )
        for line in drawn:
            typer.echo(line)


def _said_of(found: named.Named, parameters: int) -> list[str]:
    _, height, width = found.model.image_shape
    of_config = found.model.origin is not None and found.dictionary is not None
    unknown = found.dictionary if of_config and found.dictionary not in builtin_names() else None
    head = found.model.config["Architecture"]["Head"]["name"]
    return [
        f"{found.model.preset} can be trained: {parameters / 1e6:.2f} M parameters with a dictionary of ten.",
        f"images of {height}x{width}, text up to {found.model.max_text_length} characters, {head}, "
        f"dictionary {found.dictionary or 'of the labels'}.",
        f"{found.epochs} epochs, batches of {found.batch_size}, learning rate {found.learning_rate:g}.",
        *([f"{not_there(unknown)}."] if unknown else []),
    ]


def _sizes() -> tables.Sizes:
    """What `rectrain_trainer.preset_sizes` has counted and timed."""
    if not _SIZES.is_file():
        return {}
    sizes: tables.Sizes = yaml.safe_load(_SIZES.read_text("utf-8"))["presets"]
    return sizes


def _parameters(found: named.Named) -> int:
    """Weights of the whole model, with a dictionary of ten. Raises InvalidSpec when it can't be built."""
    from rectrain_trainer.config import resolve
    from rectrain_trainer.device import configure_device
    from rectrain_trainer.model import build_model

    configure_device(0, deterministic=False)
    model = build_model(resolve(found.model, found.training(), "0123456789"))
    return sum(int(weight.size) for weight in model.parameters())


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
