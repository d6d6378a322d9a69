"""The demo: from nothing to an exported digit reader, by the commands that users run.

`make demo` runs it on a cluster of its own (`rectrain-local exec`); tests/e2e runs it on theirs. It
needs KUBECONFIG (an administrator's) and the AWS_* names of an S3 service, and leaves nothing behind but
what it put into that cluster and bucket.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
BUCKET = "rectrain-demo"
IMAGES = ("rectrain-operator:local", "rectrain-trainer:local")
OPERATOR_NAMESPACE = "rectrain-system"
RELEASE = "rectrain-operator"
SHOWN = ("PHASE", "PROGRESS", "EPOCH", "ACC", "LOSS", "ETA", "CKPT-AGE")
DEADLINE_S = 900
ACCURACY_WANTED = 0.95

console = Console(stderr=True, highlight=False)


class DemoFailed(Exception):
    """The demo can't go on; the text says why and where to look."""


def run(*argv: str, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """A command of ours or kubectl's; its output, or DemoFailed with what it said."""
    program = BIN / argv[0] if (BIN / argv[0]).exists() else argv[0]
    done = subprocess.run(
        [str(program), *argv[1:]], input=stdin, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DemoFailed(f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def say(text: str) -> None:
    """One line of what is being done."""
    console.print(f"[bold]==>[/] {text}")


def s3_client() -> Any:
    """S3 as the environment names it."""
    return boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3"))


def ensure_bucket() -> None:
    """The demo's bucket, made unless it is there."""
    s3 = s3_client()
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        s3.create_bucket(Bucket=BUCKET)


def prepare_data(work: Path, count: int, seed: int) -> Path:
    """Make and pack the images, put them into the bucket; the local packed set."""
    say(f"Making {count:,} labelled images of digits, packing and uploading them")
    subprocess.run(
        [BIN / "rectrain-data", "demo", work / "digits", "--count", str(count), "--seed", str(seed)],
        check=True,
    )
    ensure_bucket()
    packed = work / "digits" / "packed"
    subprocess.run([BIN / "rectrain-data", "upload", packed, f"s3://{BUCKET}/digits"], check=True)
    return packed


def install(*options: str, namespace: str = "default", endpoint: str | None = None) -> None:
    """The operator by its chart, and the credentials Secret of a namespace. Twice does no harm.

    `options` go to helm; the images are those of the process node unless they say otherwise. `endpoint` is
    that of S3 as pods reach it, where this process reaches it by another.
    """
    if shutil.which("helm") is None:
        raise DemoFailed("helm isn't on PATH: `rectrain-local prepare` makes one, or install helm 3 or 4.")
    say("Installing the operator by its chart (helm upgrade --install)")
    run(
        "helm", "upgrade", "--install", RELEASE, str(ROOT / "charts" / "rectrain-operator"),
        "--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m",
        "--set", "image.tag=local", "--set", "trainerImage.tag=local", "--take-ownership", *options,
    )  # fmt: skip
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3")
    secret: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3-credentials", "namespace": namespace},
        "stringData": {k: os.environ[k] for k in keys if k in os.environ},
    }
    if endpoint:
        secret["stringData"]["AWS_ENDPOINT_URL_S3"] = endpoint
    run("kubectl", "apply", "-f", "-", stdin=json.dumps(secret))


def operator_log(lines: int) -> str:
    """The operator's last words."""
    return run("kubectl", "-n", OPERATOR_NAMESPACE, "logs", f"deployment/{RELEASE}", f"--tail={lines}")


def kubectl_row(name: str) -> dict[str, str]:
    """The line that `kubectl get rectrainingjobs` shows, by column."""
    header, *rows = run("kubectl", "get", "rectrainingjobs", name).splitlines()
    starts = [m.start() for m in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    names = header.split()
    return {n: rows[0][a:b].strip() for n, a, b in zip(names, starts, ends, strict=True)} if rows else {}


def status_of(name: str) -> dict[str, Any]:
    """`status` of the run."""
    job = json.loads(run("kubectl", "get", "rectrainingjob", name, "-o", "json"))
    return dict(job.get("status", {}))


def picture(name: str, row: dict[str, str], message: str) -> Table:
    """What `kubectl get rectrainingjobs` shows, as a table that stays in place."""
    table = Table(title="kubectl get rectrainingjobs", title_justify="left", caption=escape(message) or None)
    table.add_column("NAME", style="bold")
    for column in SHOWN:
        table.add_column(column, justify="left" if column == "PHASE" else "right", min_width=6)
    table.add_row(name, *(row.get(c, "") for c in SHOWN))
    return table


def follow(name: str) -> dict[str, Any]:
    """Show the run until it ends; its last status."""
    say("kubectl apply -f examples/digits/")
    run("kubectl", "apply", "-f", str(ROOT / "examples" / "digits"))
    deadline = time.monotonic() + DEADLINE_S
    live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
    last = ""
    with live or contextlib.nullcontext():
        while time.monotonic() < deadline:
            row, status = kubectl_row(name), status_of(name)
            if live:
                live.update(picture(name, row, status.get("message", "")))
            elif (line := "  ".join(row.get(c, "") or "-" for c in SHOWN[:-1])) != last:
                last = line
                console.print(f"    {line}")
            if status.get("phase") in ("Succeeded", "Failed"):
                return status
            time.sleep(1)
    raise DemoFailed(f"{name} hasn't ended after {DEADLINE_S} s: {status.get('message', 'no message')}")


def held_out(packed: Path, folder: Path, count: int) -> list[tuple[Path, str]]:
    """A few images of the evaluation split as files, with their labels."""
    from rectrain_data.packed import PackedSet

    folder.mkdir(parents=True, exist_ok=True)
    chosen = []
    images = PackedSet.open(packed, split="eval")
    for i in range(0, len(images), max(len(images) // count, 1)):
        path = folder / f"{i:05d}.png"
        path.write_bytes(images.image_bytes(i))
        chosen.append((path, images.label(i)))
    return chosen[:count]


def show_result(name: str, status: dict[str, Any], packed: Path, work: Path) -> None:
    """Verdict, artefacts, and what the exported model reads. Raises DemoFailed when any of it is off."""
    if status["phase"] != "Succeeded":
        raise DemoFailed(f"the run ended as {status['phase']}: {status.get('message', 'no message')}")
    accuracy = status["metrics"]["best"]["accuracy"]
    percent = status["progress"]["percent"]
    place = json.loads(run("kubectl", "get", "rectrainingjob", name, "-o", "json"))["spec"]["checkpoint"][
        "uri"
    ]
    show_artefacts(place)
    model = status["model"]["uri"]
    samples = held_out(packed, work / "held-out", 5)
    read = json.loads(run("rectrain-trainer", "predict", model, *(str(p) for p, _ in samples), "--json"))
    table = Table(title=f"Read by {model}", title_justify="left")
    for column in ("held-out image", "label", "read", "confidence"):
        table.add_column(column)
    right = 0
    for (path, label), found in zip(samples, read, strict=True):
        ok = found["text"] == label
        right += ok
        colour = "green" if ok else "red"
        table.add_row(
            path.name, escape(label), f"[{colour}]{escape(found['text'])}[/]", f"{found['confidence']:.3f}"
        )
    console.print(table)
    if percent != 100 or accuracy < ACCURACY_WANTED:
        raise DemoFailed(
            f"{percent}% done with accuracy {accuracy:.1%}: wanted 100% and {ACCURACY_WANTED:.0%}."
        )
    console.print(
        f"[bold green]Succeeded[/]: 100%, accuracy {accuracy:.1%} on the held-out 20%; "
        f"{right} of {len(samples)} samples read right."
    )


def show_artefacts(place: str) -> None:
    """What the run left in S3, folder by folder."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    table = Table(title=f"In {place}", title_justify="left")
    table.add_column("folder")
    table.add_column("files", justify="right")
    table.add_column("bytes", justify="right")
    sizes: dict[str, list[int]] = {}
    for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for item in page.get("Contents", []):
            folder = item["Key"].removeprefix(prefix + "/").rpartition("/")[0]
            sizes.setdefault(folder, []).append(item["Size"])
    for folder, files in sorted(sizes.items()):
        table.add_row(folder, str(len(files)), f"{sum(files):,}")
    console.print(table)


def next_commands(name: str, place: str) -> None:
    """Where to look further."""
    console.print(
        "\nLook further (make demo KEEP=1 keeps all of it running until Ctrl-C):\n"
        f"    kubectl get rectrainingjobs {name} -o wide\n"
        f"    kubectl describe rectrainingjob {name}\n"
        f"    kubectl logs job/{name}\n"
        "    kubectl explain rectrainingjob.spec\n"
        f"    kubectl -n {OPERATOR_NAMESPACE} logs deployment/{RELEASE}\n"
        f"    rectrain-trainer predict {place}/export IMAGE.png"
    )


def demo(work: Path, count: int, seed: int, keep: bool) -> None:
    """All of it. Raises DemoFailed."""
    packed = prepare_data(work, count, seed)
    install()
    status = follow("digits")
    show_result("digits", status, packed, work)
    next_commands("digits", f"s3://{BUCKET}/runs/digits")
    if keep:
        console.print(
            "\nEverything is still running. In another terminal:\n"
            f"    export KUBECONFIG={os.environ['KUBECONFIG']} PATH={BIN}:$PATH\n"
            "Ctrl-C here stops it all."
        )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def on_own_cluster(arguments: list[str]) -> int:
    """Start a cluster for this one command, and stop it whatever happens."""
    images = [word for name in IMAGES for word in ("--image", f"{name}={BIN.parent}")]
    command = [BIN / "rectrain-local", "exec", *images, "--"]
    return subprocess.run(
        [*command, sys.executable, __file__, "--inside", *arguments], check=False
    ).returncode


def main() -> int:
    """Exit 0 when the model was trained, exported and reads its images; 1 otherwise; 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inside", action="store_true", help="use the cluster that KUBECONFIG names")
    parser.add_argument("--keep", action="store_true", help="leave all running until Ctrl-C")
    parser.add_argument("--count", type=int, default=5000, help="images to make")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not args.inside:
        return on_own_cluster(sys.argv[1:])
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rectrain-demo-") as work:
        try:
            demo(Path(work), args.count, args.seed, args.keep)
        except DemoFailed as e:
            console.print(f"[bold red]The demo failed:[/] {escape(str(e))}")
            with contextlib.suppress(DemoFailed):
                tail = operator_log(15).splitlines()
                console.print("The operator's last lines:\n    " + "\n    ".join(tail), markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("Stopped.")
            return 130
    console.print(f"The demo took {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
