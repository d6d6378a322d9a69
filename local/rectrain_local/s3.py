"""An S3 store for the local cluster: SeaweedFS, one process, random keys. Used by `cluster` and tests.

It enforces If-None-Match and rejects wrong checksums (measured), which training's checkpoint log needs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rectrain_local.errors import PortTaken
from rectrain_local.files import private_dir, write_private
from rectrain_local.pki import issue, make_authority
from rectrain_local.ports import LOOPBACK, free_ports
from rectrain_local.processes import Child, Children, plain_environment, start, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

REGION: Final = "us-east-1"
READY_DEADLINE_S: Final = 60.0
START_TRIES: Final = 3
NAME: Final = "weed"
SOCKETS: Final = Path("/tmp")  # noqa: S108 - SeaweedFS's own choice; only their owner can connect
# Not the user's: a profile or file of theirs could even keep the client from being made.
OWN_SETTINGS_ONLY: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
PROBE: Final = "rectrain-local-probe"
TOKENS: Final = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
PARTS: Final = ("master", "volume", "filer", "s3", "client", "admin", "worker", "mq", "msg_broker")


class SeaweedS3:
    """One SeaweedFS. `start()` returns when it answers signed requests; `stop()` may be called always."""

    def __init__(self, folder: Path, weed: Path) -> None:
        self.folder = folder
        self.children = Children()
        self.access_key = f"LOCAL{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_urlsafe(30)
        self._weed = weed
        self._ports: list[int] = []
        self._argv: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self._ports[0]}"

    @property
    def env(self) -> dict[str, str]:
        """What an S3 client needs, under the names that AWS's own clients read."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def start(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start and wait until ready; ports that are taken meanwhile are replaced, a few times."""
        progress("starting SeaweedFS (S3)")
        private_dir(self.folder)
        for attempt in range(1, START_TRIES + 1):
            self._ports = free_ports(10)
            self._argv = [str(self._weed), *self._arguments(self._ports)]
            try:
                self.restart()
            except PortTaken:
                self.stop()
                if attempt == START_TRIES:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def restart(self) -> None:
        """Start it (again) with the same data, keys and port."""
        child = self.children.add(self._launch())
        wait_until(
            self._answers,
            what=f"S3 at {self.endpoint}",
            deadline_s=READY_DEADLINE_S,
            check=self.children.check,
            child=child,
        )

    def stop(self, *, kill: bool = False) -> None:
        self.children.stop(NAME, grace_s=0.0 if kill else 10.0)
        for port in self._ports:
            for socket in SOCKETS.glob(f"seaweedfs-*-grpc-{port}.sock"):
                socket.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise ComponentFailed if it has died."""
        self.children.check()

    def make_bucket(self, name: str) -> str:
        """Create a bucket of ours (harmless if it is there); returns its URI."""
        self._make_bucket(self._client(tries=5), name)
        return f"s3://{name}"

    @staticmethod
    def _make_bucket(client: S3Client, name: str) -> None:
        try:
            client.create_bucket(Bucket=name)
        except ClientError as refused:
            if refused.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    def _launch(self) -> Child:
        return start(
            NAME,
            self._argv,
            log=self.folder / "weed.log",
            env=plain_environment(
                {
                    "HOME": str(self.folder),
                    "TMPDIR": str(self.folder),
                    "AWS_ACCESS_KEY_ID": self.access_key,
                    "AWS_SECRET_ACCESS_KEY": self.secret_key,
                }
            ),
            cwd=self.folder,
        )

    def _arguments(self, ports: list[int]) -> list[str]:
        s3, s3_grpc, filer, filer_grpc, master, master_grpc, volume, volume_grpc, admin, admin_grpc = ports
        data = private_dir(self.folder / "data")
        write_private(self.folder / "security.toml", self._security())
        return [
            "-logtostderr=true",
            "mini",
            f"-dir={data}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            f"-admin.port={admin}",
            f"-admin.port.grpc={admin_grpc}",
            "-admin.ui=false",
            # Beside the data, not in /tmp; relative, because such paths must be short.
            "-filer.localSocket=filer.sock",
            "-s3.localSocket=s3.sock",
            "-webdav=false",
            "-master.telemetry=false",
        ]

    def _security(self) -> str:
        """Closes SeaweedFS's inner doors to other users of this machine: S3 isn't the only way to the data.

        It reads the file from its working folder. HTTP calls need a token signed with these keys, gRPC calls
        a certificate of this authority.
        """
        authority = make_authority(private_dir(self.folder / "pki"), "ca")
        own = issue(authority, self.folder / "pki", "weed", common_name="weed", hosts=[LOOPBACK, "localhost"])
        sections = [f'[{name}]\nkey = "{secrets.token_urlsafe(32)}"' for name in TOKENS]
        sections += [f'[grpc]\nca = "{authority.cert}"']
        sections += [f'[grpc.{part}]\ncert = "{own.cert}"\nkey = "{own.key}"' for part in PARTS]
        return "\n\n".join(sections) + "\n"

    def _client(self, *, tries: int) -> S3Client:
        return boto3.Session(botocore_session=botocore.session.Session(OWN_SETTINGS_ONLY)).client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                connect_timeout=2,
                read_timeout=10,
                retries={"total_max_attempts": tries, "mode": "standard"},
                s3={"addressing_style": "path"},
                proxies={},
            ),
        )

    def _answers(self) -> bool:
        """Whether an object can be written and read: buckets are listed sooner than the volumes are found."""
        client = self._client(tries=1)
        try:
            self._make_bucket(client, PROBE)
            client.put_object(Bucket=PROBE, Key=PROBE, Body=b"ready")
            found = client.get_object(Bucket=PROBE, Key=PROBE)["Body"].read() == b"ready"
            client.delete_object(Bucket=PROBE, Key=PROBE)
            client.delete_bucket(Bucket=PROBE)
        except (BotoCoreError, ClientError):
            return False
        return found
