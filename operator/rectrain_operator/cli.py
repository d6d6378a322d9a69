"""`rectrain-operator`: run the operator, or print the rights it needs."""

import asyncio
import re
import sys
import traceback
from importlib import resources
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from rectrain_api.errors import RectrainError, UsageError
from rectrain_api.exit_codes import EX_USAGE, outcome_of
from rectrain_operator import app as operator_app
from rectrain_operator import logs
from rectrain_operator.settings import DEFAULT_TRAINER_IMAGE, Settings

TYPER_USAGE: Final = 2
SECRET: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Runs RecTrainingJobs.", pretty_exceptions_enable=False
)


@app.command()
def run(
    report_url: Annotated[
        str,
        typer.Option(
            envvar="RECTRAIN_REPORT_URL",
            help="Where training pods reach this operator, such as https://rectrain-operator.rectrain:8443. "
            "The certificate is made for its host.",
        ),
    ],
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Sign in by this file. Default: the pod's service account."
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", help="Watch this namespace; repeat for more. Default: all."),
    ] = None,
    state_dir: Annotated[
        Path, typer.Option(envvar="RECTRAIN_STATE_DIR", help="Folder of the report server's certificate.")
    ] = Path("/var/lib/rectrain-operator"),
    certificate_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/NAME",
            help="Secret that keeps the certificate instead of a folder; it must be there already.",
        ),
    ] = None,
    report_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on. Default: that of --report-url.")
    ] = None,
    report_host: Annotated[str, typer.Option(help="Address to listen on for reports.")] = "0.0.0.0",  # noqa: S104 - pods come from other nodes
    trainer_image: Annotated[
        str,
        typer.Option(envvar="RECTRAIN_TRAINER_IMAGE", help="Image of runs that name none."),
    ] = DEFAULT_TRAINER_IMAGE,
    health_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of /healthz, /readyz and /metrics.")
    ] = 8080,
    health_host: Annotated[str, typer.Option(help="Address to listen on for probes.")] = "0.0.0.0",  # noqa: S104 - probes come from the node
    debug: Annotated[bool, typer.Option("--debug", help="Log more; show tracebacks.")] = False,
) -> None:
    """Watch RecTrainingJobs and run them, until SIGTERM."""
    logs.set_up(debug=debug)
    report_url_port = port_of(report_url)
    for name in namespace or ():
        if not NAMESPACE.fullmatch(name):
            raise UsageError(f'--namespace "{name}" can\'t be the name of a namespace: correct it.')
    settings = Settings(
        report_url=report_url.rstrip("/"),
        report_host=report_host,
        report_port=report_port or report_url_port,
        state_dir=state_dir,
        certificate_secret=secret_of(certificate_secret) if certificate_secret is not None else None,
        trainer_image=trainer_image,
        namespaces=tuple(dict.fromkeys(namespace or ())),
        kubeconfig=kubeconfig,
        health_host=health_host,
        health_port=health_port,
    )
    asyncio.run(operator_app.run(settings))


def secret_of(option: str) -> tuple[str, str]:
    """Namespace and name of a --certificate-secret. Raises UsageError."""
    namespace, _, name = option.partition("/")
    if not (NAMESPACE.fullmatch(namespace) and SECRET.fullmatch(name)):
        raise UsageError(f'--certificate-secret "{option}" must look like NAMESPACE/NAME.')
    return namespace, name


def port_of(report_url: str) -> int:
    """The port of a --report-url. Raises UsageError unless it is https, host and port alone."""
    try:
        parts = urlsplit(report_url)
        port = 443 if parts.port is None else parts.port
    except ValueError:  # brackets, or a port that is no number
        port, parts = 0, urlsplit("")
    bare = f"https://{parts.netloc}" in (report_url, report_url.rstrip("/"))
    if not (port and parts.hostname and bare and report_url.isascii() and "@" not in parts.netloc):
        raise UsageError(f'--report-url "{report_url}" must look like https://host:port.')
    return port


@app.command()
def manifests() -> None:
    """Print the namespace, service account and rights that the operator needs, as YAML for kubectl."""
    sys.stdout.write((resources.files("rectrain_operator") / "rbac.yaml").read_text("utf-8"))


def main() -> None:
    """Entry point: errors become one sentence and an exit code; a wrong command line exits 64."""
    try:
        app()
    except SystemExit as end:
        sys.exit(EX_USAGE if end.code == TYPER_USAGE else end.code)
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        ours = isinstance(error, RectrainError)
        said = (
            str(error) if ours else f"{type(error).__name__}: {error} (a fault of ours; --debug shows where)"
        )
        sys.stderr.write(f"rectrain-operator: {said}\n")
        sys.exit(outcome_of(error).exit_code)
