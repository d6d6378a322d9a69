"""`rectrain-local`: a whole cluster on this machine. The thin edge: options in, sentences out.

`up`, `down`, `status` and `env` manage a cluster in the background; `exec` runs one command beside a cluster
of its own; `prepare` gets the programs beforehand.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from rectrain_local import background, signals, state
from rectrain_local.assets.bubblewrap import check_sandbox, find_bubblewrap
from rectrain_local.assets.cache import Cache, cache_root
from rectrain_local.assets.makers import default_makers, find_helm
from rectrain_local.assets.resolve import Binaries, resolve_binaries
from rectrain_local.cluster import WHAT_IT_IS, Cluster, ClusterSpec
from rectrain_local.command import run_command
from rectrain_local.environments import parse_images
from rectrain_local.errors import EX_OSERR, EX_SOFTWARE, EX_USAGE, CommandMissing, LocalError, NotRunning
from rectrain_local.processes import undisturbed
from rectrain_local.progress import Progress
from rectrain_local.supervisor import Order

MAX_NODES: Final = 16
TYPER_USAGE: Final = 2
# Settings of the user's own account that S3 clients would prefer to the cluster's keys, or mix with them.
MISLEADING: Final = ("AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN")


class CommandEnded(Exception):
    """How the user's command ended. Not Typer's own Exit, whose 2 is a wrong command line of ours."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

Nodes = Annotated[int, typer.Option(min=0, max=MAX_NODES, help="Process nodes to start.")]
Gpus = Annotated[int, typer.Option(min=0, max=64, help="nvidia.com/gpu each node offers, for scheduling.")]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="NAME=ENVDIR",
        help="Image name (or pattern) that a Python environment of this machine stands for; repeatable. "
        "Default: every image is the environment of this command.",
    ),
]
State = Annotated[
    Path | None, typer.Option("--state", help="Folder of the cluster. Default: under XDG_STATE_HOME.")
]


def _console() -> Console:
    return Console(file=sys.stderr, highlight=False)


def _out(line: str) -> None:
    typer.echo(line)


def _folder(chosen: Path | None) -> Path:
    return chosen.expanduser().absolute() if chosen else state.default_state()


def _spec(nodes: int, gpus: int, images: list[str] | None) -> ClusterSpec:
    return ClusterSpec(nodes, gpus, {name: str(path) for name, path in parse_images(images or []).items()})


def _programs(nodes: int) -> tuple[Binaries, Path | None]:
    """Everything that a cluster with so many nodes runs, fetched or built if need be."""
    progress, cache = Progress(), Cache(cache_root())
    bwrap = None
    if nodes:  # first, because it may fail at once and the rest may take long
        bwrap = find_bubblewrap(cache, progress)
        check_sandbox(bwrap)
    return resolve_binaries(progress, cache, default_makers()), bwrap


def _command_environment(cluster: Mapping[str, str]) -> dict[str, str]:
    """The user's own, pointed at the cluster, with kubectl and our other commands first on PATH; our helm is
    last, if `prepare` has made it.
    """
    own = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    helm = Cache(cache_root()).place("helm").parent
    path = f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', os.defpath)}:{helm}"
    return {**own, **cluster, "PATH": path}


@app.command()
def up(nodes: Nodes = 1, gpus: Gpus = 0, image: Images = None, state_: State = None) -> None:
    """Start a cluster in the background; returns when it is ready."""
    folder, console = _folder(state_), _console()
    spec = _spec(nodes, gpus, image)
    state.check_ours(folder)
    state.remove_dead_runs(state.state_base())
    if state.is_live(folder):
        _already_up(background.running(folder), spec, console)
        return
    binaries, bwrap = _programs(nodes)
    order = Order(
        nodes=nodes,
        gpus=gpus,
        images=dict(spec.images),
        programs=binaries.programs,
        kubectl=binaries.kubectl,
        weed=binaries.weed,
        bwrap=bwrap,
    )
    with console.status("starting a cluster"):
        record = background.start(folder, order, lambda step: console.print(step, markup=False))
    console.print(f"The cluster is ready. {WHAT_IT_IS}", markup=False, soft_wrap=True)
    console.print('eval "$(rectrain-local env)" points kubectl and S3 clients at it; ', end="", markup=False)
    console.print("`rectrain-local down` ends it and deletes its data.", markup=False)
    _print_env(record)


def _already_up(record: state.Record, spec: ClusterSpec, console: Console) -> None:
    console.print("A cluster is already up; nothing was changed.", markup=False)
    if (record.nodes, record.gpus, record.images) != (spec.nodes, spec.gpus, dict(spec.images)):
        console.print(
            f"It has {record.nodes} node(s) with {record.gpus} GPU(s) each and may know other images: "
            "`rectrain-local down` first, to start one as asked for.",
            markup=False,
            soft_wrap=True,
        )
    _print_env(record)


def _print_env(record: state.Record) -> None:
    _out(f"unset {' '.join(MISLEADING)}")
    for name, value in record.env.items():
        _out(f"export {name}={shlex.quote(value)}")
    _out(f'export PATH={shlex.quote(sysconfig.get_path("scripts"))}:"$PATH"')


@app.command()
def down(state_: State = None) -> None:
    """End the cluster and delete its data. Harmless if there is none."""
    folder = _folder(state_)
    existed = background.stop(folder)
    state.remove_dead_runs(state.state_base())
    _console().print(
        "The cluster has ended; its data is deleted." if existed else f"No cluster was running in {folder}.",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def env(state_: State = None) -> None:
    """Print shell lines that point kubectl and S3 clients at the cluster."""
    _print_env(background.running(_folder(state_)))


@app.command()
def status(state_: State = None) -> None:
    """Say whether the cluster runs, and of what it consists; exit 69 if it doesn't."""
    folder = _folder(state_)
    record = background.running(folder)
    _out(f"cluster     ready, {record.nodes} node(s), {record.gpus} GPU(s) each")
    _out(f"state       {folder}")
    _out(f"kubeconfig  {record.env['KUBECONFIG']}")
    _out(f"s3          {record.env['AWS_ENDPOINT_URL_S3']}")
    for name, pid in {"supervisor": record.pid, **record.processes}.items():
        _out(f"process     {name} {pid}")


@app.command()
def prepare() -> None:
    """Get the programs of a cluster, and helm (download or build them); check that nodes can run here."""
    binaries, bwrap = _programs(nodes=1)
    helm = find_helm(Cache(cache_root()), Progress())
    for path in (*binaries.programs.values(), binaries.kubectl, binaries.weed, bwrap, helm):
        _out(str(path))


@app.command("exec", context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
def exec_(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARG]…", help="What to run.")],
    nodes: Nodes = 1,
    gpus: Gpus = 0,
    image: Images = None,
) -> None:
    """Run COMMAND beside a cluster of its own, with KUBECONFIG and AWS_* set; then end the cluster.

    Returns COMMAND's status.
    """
    console, spec = _console(), _spec(nodes, gpus, image)
    if shutil.which(command[0], path=_command_environment({})["PATH"]) is None:
        raise CommandMissing(f"cannot start {command[0]}: there is no such program, or it isn't executable")
    state.remove_dead_runs(state.state_base())
    binaries, bwrap = _programs(nodes)
    folder = state.state_base() / f"{state.EXEC_PREFIX}{secrets.token_hex(4)}"
    with state.hold(folder):
        cluster = Cluster(folder, spec, binaries, bwrap)
        try:
            with console.status("starting a cluster"):
                cluster.start(lambda step: console.print(step, markup=False))
            code = run_command(command, _command_environment(cluster.env), cluster.failure)
        finally:
            with undisturbed():
                cluster.stop()
                state.remove(folder)
    raise CommandEnded(code)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback for an error.")] = False,
) -> None:
    _settings["debug"] = debug


_settings = {"debug": False}


def main() -> None:
    """Entry point: every error is one sentence and a status."""
    signals.install()
    try:
        app()
    except SystemExit as end:
        sys.exit(EX_USAGE if end.code == TYPER_USAGE else end.code)
    except CommandEnded as end:
        sys.exit(end.status)
    except LocalError as failed:
        _show_traceback()
        hint = "" if isinstance(failed, NotRunning) else "rectrain-local: "
        _console().print(f"{hint}{failed}", markup=False, soft_wrap=True)
        sys.exit(failed.exit_code)
    except signals.Interrupted as asked:
        _console().print(f"rectrain-local: ended by {asked}; nothing is left running.", markup=False)
        sys.exit(asked.exit_code)
    except OSError as failed:
        _show_traceback()
        _console().print(f"rectrain-local: {failed}: check the path, its rights and the disk", markup=False)
        sys.exit(EX_OSERR)
    except Exception as failed:
        _show_traceback()
        what = f"{type(failed).__name__}: {failed} (a fault of ours; --debug before the command tells more)"
        _console().print(f"rectrain-local: {what}", markup=False, soft_wrap=True)
        sys.exit(EX_SOFTWARE)


def _show_traceback() -> None:
    if _settings["debug"]:
        traceback.print_exc()
