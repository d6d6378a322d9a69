"""Which versions a local cluster runs, and for which machines. `local/go.mod` and its like pin the same."""

from __future__ import annotations

import platform
from typing import Final

KUBERNETES: Final = "v1.37.2"
ETCD: Final = "v3.7.3"
HELM: Final = "v4.3.1"
HELM_3: Final = "v3.22.0"
ACTIONLINT: Final = "v1.7.12"
KUBECONFORM: Final = "v0.8.0"
S5CMD: Final = "v2.3.0"
KUBERNETES_PROGRAMS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS: Final = ("etcd", *KUBERNETES_PROGRAMS)
TOOLS: Final = ("helm", "helm3", "actionlint", "kubeconform", "s5cmd")
"""Not of the cluster: helm installs on it (helm3 is the major version before), actionlint and kubeconform
check files, and uploads are measured against s5cmd."""

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}


def architecture() -> str:
    """This machine in the words of Kubernetes' downloads; an unknown one as it calls itself."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def minor(version: str) -> str:
    """`v1.37.2` -> `v1.37`: what programs found on the machine must agree in."""
    return ".".join(version.split(".")[:2])


def wanted_line(program: str) -> str:
    """What the output of `PROGRAM --version` has to hold to be usable."""
    if program == "etcd":
        return f"etcd Version: {minor(ETCD).removeprefix('v')}."
    return f"Kubernetes {minor(KUBERNETES)}."
