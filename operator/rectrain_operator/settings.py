"""The operator's own settings, fixed at start. Made by `cli`, read by everything that needs one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_api import VERSION

NAME: Final = "rectrain-operator"
DEFAULT_TRAINER_IMAGE: Final = f"rectrain-trainer:{VERSION}"


@dataclass(frozen=True)
class Settings:
    """What one operator process runs with."""

    report_url: str
    """Where pods reach the report server, such as https://rectrain-operator.rectrain.svc:8443."""
    report_host: str
    report_port: int
    """Where the report server listens; behind a Service the port may differ from the URL's."""
    state_dir: Path
    """Where the certificate is kept, unless in a Secret."""
    certificate_secret: tuple[str, str] | None = None
    """Namespace and name of the Secret that keeps the certificate."""
    trainer_image: str = DEFAULT_TRAINER_IMAGE
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; empty means all."""
    kubeconfig: Path | None = None
    """None: the pod's own service account."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes come from the node
    health_port: int = 8080
    workers: int = 32
    resync_s: float = 300.0


@dataclass(frozen=True)
class PodSettings:
    """The part of the settings that child builders need."""

    trainer_image: str
    report_url: str
    ca_pem: str
