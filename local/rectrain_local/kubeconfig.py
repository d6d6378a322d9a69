"""Kubeconfig files with everything inside, so that one 0600 file is all a client needs."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from rectrain_local.files import write_private
from rectrain_local.pki import Credentials

CLUSTER = "rectrain-local"


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def write_kubeconfig(path: Path, *, server: str, ca: Path, user: str, credentials: Credentials) -> Path:
    """Write a kubeconfig for one user of the API server at `server`."""
    return write_private(
        path,
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": CLUSTER,
                        "cluster": {"server": server, "certificate-authority-data": _inline(ca)},
                    }
                ],
                "users": [
                    {
                        "name": user,
                        "user": {
                            "client-certificate-data": _inline(credentials.cert),
                            "client-key-data": _inline(credentials.key),
                        },
                    }
                ],
                "contexts": [{"name": CLUSTER, "context": {"cluster": CLUSTER, "user": user}}],
                "current-context": CLUSTER,
            }
        ),
    )
