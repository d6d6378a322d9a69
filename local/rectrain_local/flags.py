"""The command lines of the control plane. Pure; called by `controlplane`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_local.pki import Pki
from rectrain_local.ports import LOOPBACK

SERVICE_RANGE: Final = "10.96.0.0/16"
API_SERVICE_IP: Final = "10.96.0.1"
API_HOSTS: Final = (
    LOOPBACK,
    API_SERVICE_IP,
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
SWITCHED_OFF: Final = (
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
)


@dataclass(frozen=True)
class Ports:
    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int


def etcd_flags(folder: Path, ports: Ports, pki: Pki) -> list[str]:
    clients, peers = (
        f"https://{LOOPBACK}:{ports.etcd}",
        f"https://{LOOPBACK}:{ports.etcd_peer}",
    )
    return [
        "--name=local",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=local={peers}",
        "--client-cert-auth",
        f"--trusted-ca-file={pki.etcd_ca.cert}",
        f"--cert-file={pki.etcd.cert}",
        f"--key-file={pki.etcd.key}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={pki.etcd_ca.cert}",
        f"--peer-cert-file={pki.etcd.cert}",
        f"--peer-key-file={pki.etcd.key}",
        "--unsafe-no-fsync",  # the data lives as long as the cluster, never longer than the machine
        "--log-level=warn",
    ]


def apiserver_flags(_folder: Path, ports: Ports, pki: Pki) -> list[str]:
    return [
        f"--etcd-servers=https://{LOOPBACK}:{ports.etcd}",
        f"--etcd-cafile={pki.etcd_ca.cert}",
        f"--etcd-certfile={pki.etcd_client.cert}",
        f"--etcd-keyfile={pki.etcd_client.key}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports.apiserver}",
        f"--tls-cert-file={pki.apiserver.cert}",
        f"--tls-private-key-file={pki.apiserver.key}",
        f"--client-ca-file={pki.ca.cert}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki.service_account_public}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        f"--kubelet-certificate-authority={pki.ca.cert}",
        f"--kubelet-client-certificate={pki.kubelet_client.cert}",
        f"--kubelet-client-key={pki.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--requestheader-client-ca-file={pki.front_proxy_ca.cert}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki.front_proxy_client.cert}",
        f"--proxy-client-key-file={pki.front_proxy_client.key}",
        "--shutdown-delay-duration=0s",
    ]


def controller_manager_flags(folder: Path, ports: Ports, pki: Pki) -> list[str]:
    own = folder / "controller-manager.kubeconfig"
    return [
        *_follower_flags(own, ports.controller_manager, pki),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki.service_account_key}",
        f"--root-ca-file={pki.ca.cert}",
        f"--cluster-signing-cert-file={pki.ca.cert}",
        f"--cluster-signing-key-file={pki.ca.files.key}",
        f"--controllers=*,{','.join(f'-{name}' for name in SWITCHED_OFF)}",
    ]


def scheduler_flags(folder: Path, ports: Ports, pki: Pki) -> list[str]:
    return _follower_flags(folder / "scheduler.kubeconfig", ports.scheduler, pki)


def _follower_flags(own: Path, port: int, pki: Pki) -> list[str]:
    """What controller manager and scheduler have in common; one replica needs no election."""
    return [
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        f"--client-ca-file={pki.ca.cert}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--tls-cert-file={pki.apiserver.cert}",
        f"--tls-private-key-file={pki.apiserver.key}",
        "--leader-elect=false",
    ]


FLAGS: Final[Mapping[str, Callable[[Path, Ports, Pki], list[str]]]] = {
    "etcd": etcd_flags,
    "kube-apiserver": apiserver_flags,
    "kube-controller-manager": controller_manager_flags,
    "kube-scheduler": scheduler_flags,
}
