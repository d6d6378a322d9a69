"""`rectrain-trainer`: run a job (in a pod; a manifest or a config of PaddleOCR on a laptop), read images with
its model, or look into its checkpoints (`rectrain_trainer.checkpoints`) or at models
(`rectrain_trainer.configs`).

The pod's command is `rectrain-trainer run --plan /etc/rectrain/plan/run.json`. Imports stay light: what
needs Paddle is imported by the child, or when it is used.
"""

import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rectrain_api.errors import UsageError
from rectrain_api.exit_codes import EX_USAGE, outcome_of
from rectrain_api.report import TerminationResult
from rectrain_data.interrupts import Interrupts
from rectrain_trainer import checkpoints, configs
from rectrain_trainer.child import read_plan
from rectrain_trainer.complaint import complain, meant
from rectrain_trainer.console import set_up_logging
from rectrain_trainer.environment import PodEnvironment, ensure_home, laptop_work_dir
from rectrain_trainer.laptop import gpus_here, overrides_of, plan_of_config
from rectrain_trainer.launch import launch
from rectrain_trainer.manifest import read_manifest
from rectrain_trainer.meeting import Seat
from rectrain_trainer.outcome import Until
from rectrain_trainer.supervisor import block_signals, unblock_signals

log = logging.getLogger(__name__)

app = typer.Typer(
    name="rectrain-trainer",
    help="Train a RecTrainingJob, or read images with the model it left.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(configs.app, name="config")
Debug = Annotated[bool, typer.Option("--debug", help="Say more, with tracebacks.")]


@app.command()
def run(
    file: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--file",
            help="A RecTrainingJob manifest; runs without a cluster. Its replicas.env wins over yours.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            help="A config of PaddleOCR; runs with the data and the folder that it names, without S3.",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--opt", metavar="KEY=VALUE", help="Set a key of the config: Global.epoch_num=10."
        ),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="More keys, behind one -o.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A run plan (run.json), as the operator writes it.")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option("--work-dir", help="Where data is staged; kept when named, else removed.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train to the end: stage, check, train, export. A run that was interrupted goes on where it was."""
    _supervised(file, plan, work_dir, debug, "end", config=config, pairs=[*(override or []), *(more or [])])


@app.command()
def check(
    file: Annotated[Path, typer.Option("-f", "--file", help="A RecTrainingJob manifest.")],
    work_dir: Annotated[
        Path | None, typer.Option("--work-dir", help="Where data is staged; kept when named, else removed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Do all that comes before training: reach S3, stage and look at every sample, build the model.

    Prints what was found, and what PaddleOCR's own training would silently do with the same data.
    """
    _supervised(file, None, work_dir, debug, "checked", as_json)


def _supervised(
    file: Path | None,
    plan: Path | None,
    work_dir: Path | None,
    debug: bool,
    until: Until,
    as_json: bool = False,
    config: Path | None = None,
    pairs: Sequence[str] = (),
) -> NoReturn:
    """Run the child, tell its end where Kubernetes looks for it, and exit as it says."""
    block_signals()
    set_up_logging(debug=debug)
    pod = PodEnvironment.read()
    try:
        arguments = [*(["--debug"] if debug else []), *(["--json"] if as_json else [])]
        where = work_dir or pod.work_dir
        result = _run(file, plan, where, pod.seat, arguments, until, config=config, pairs=pairs)
    except Exception as e:
        error = meant(e)
        row = outcome_of(error)
        result = TerminationResult(exit_code=row.exit_code, reason=row.reason, message=str(error))
        complain(error, debug)
    if pod.termination_log:
        try:
            pod.termination_log.write_text(result.to_termination_message(), encoding="utf-8")
        except OSError as e:
            log.warning("The termination message couldn't be written to %s: %s", pod.termination_log, e)
    raise typer.Exit(result.exit_code)


def _run(
    file: Path | None,
    plan: Path | None,
    work_dir: Path | None,
    seat: Seat | None,
    arguments: list[str],
    until: Until,
    *,
    config: Path | None,
    pairs: Sequence[str],
) -> TerminationResult:
    """Supervise one run; the temporary work folder goes with it."""
    if sum(named is not None for named in (file, config, plan)) != 1:
        raise UsageError(
            "Name one of -f job.yaml (a manifest), -c config.yml (a config of PaddleOCR) and --plan run.json "
            "(a run plan)."
        )
    if pairs and config is None:
        raise UsageError(f"{pairs[0]} sets a key of a config, and -c names none.")
    variables: dict[str, str] = {}
    temporary = None if work_dir else laptop_work_dir()
    place = work_dir or temporary
    assert place is not None
    try:
        place.mkdir(parents=True, exist_ok=True)
        ensure_home(place)
        if file is not None:
            manifest = read_manifest(file)
            variables = manifest.environment
            plan = place / "run.json"
            plan.write_text(manifest.plan.to_json(), encoding="utf-8")
        if config is not None:
            plan = place / "run.json"
            made = plan_of_config(config, overrides_of(pairs), gpus_here())
            plan.write_text(made.to_json(), encoding="utf-8")
        assert plan is not None
        arguments = ["--plan", str(plan), "--work-dir", str(place), *arguments]
        # The child leaves without the interpreter's end, which would remove multiprocessing's folders.
        with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as scratch:
            variables = {"TMPDIR": scratch, **variables}
            result = launch(read_plan(plan), seat, arguments, until, variables)
        if result.reason in ("OutOfMemory", "Crashed", "Stalled"):
            log.error("%s", result.message)
        by_hand = file is not None or config is not None
        if by_hand and until == "end" and result.reason == "Interrupted":
            log.info("The same command goes on from the last checkpoint.")
        return result
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder of an exported model, local or s3://….")],
    images: Annotated[
        list[Path], typer.Argument(help="Images of one line of text each; folders, with all images below.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    debug: Debug = False,
) -> None:
    """Read images with an exported model, printed as they are read. Exit 65 if some can't be read."""
    set_up_logging(debug=debug)
    interrupts = Interrupts()
    interrupts.install()
    unblock_signals()
    try:
        from rectrain_trainer import predict_command

        predict_command.run(model, images, as_json=as_json)
    except KeyboardInterrupt:
        log.error("Interrupted.")
        raise typer.Exit(interrupts.status) from None
    except BrokenPipeError:
        raise
    except Exception as e:
        error = meant(e)
        complain(error, debug)
        raise typer.Exit(outcome_of(error).exit_code) from None


@app.command()
def report(
    uri: Annotated[
        str,
        typer.Argument(
            help="The run's place (checkpoint.uri), such as s3://bucket/runs/x; or a local run's folder."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="HTML file to write; by default named after the run."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make the report of a run again: finished, failed, interrupted, going on. Its place stays as it is."""
    set_up_logging(debug=debug)
    unblock_signals()
    try:
        from rectrain_trainer.reporting.command import write_report

        typer.echo(write_report(uri, output))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise
    except Exception as e:
        error = meant(e)
        complain(error, debug)
        raise typer.Exit(outcome_of(error).exit_code) from None


def main() -> None:
    """Entry point; a command line that can't be understood exits 64, as all errors of its kind."""
    try:
        app()
    except SystemExit as e:
        sys.exit(EX_USAGE if e.code == 2 else e.code)
