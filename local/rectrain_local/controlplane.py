"""A real Kubernetes control plane as four processes: etcd, API server, controller manager, scheduler.

Used by `cluster`, and by tests directly. Everything listens on the loopback address only. No endpoint
reconciler and no endpoint controllers: pods here have loopback addresses, which EndpointSlices refuse; the
process node gives pods their names instead. A component can be stopped and started again on the same port
(tests of clients do that).
"""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rectrain_local.assets.resolve import Binaries
from rectrain_local.errors import ComponentFailed, PortTaken
from rectrain_local.files import private_dir
from rectrain_local.flags import API_HOSTS, FLAGS, Ports
from rectrain_local.kubeconfig import write_kubeconfig
from rectrain_local.pki import KUBELET_CLIENT, READER, Credentials, Pki, make_pki
from rectrain_local.ports import LOOPBACK, free_ports
from rectrain_local.processes import Child, Children, plain_environment, start, wait_until

READY_DEADLINE_S: Final = 120.0
START_TRIES: Final = 3
COMPONENTS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
READER_RIGHTS: Final = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": READER},
            "rules": [
                {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list", "watch"]}
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": READER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": READER},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": READER}],
        },
    ],
}


class ControlPlane:
    """The control plane of one cluster. `start()` returns when pods can be created."""

    kubelet_client_name: Final = KUBELET_CLIENT

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        self.folder = folder
        self.children = Children()
        self._binaries = binaries
        self._ports = Ports(0, 0, 0, 0, 0)
        self._pki: Pki | None = None

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self._ports.apiserver}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    @property
    def reader_kubeconfig(self) -> Path:
        """May get, list and watch pods and services, nothing else."""
        return self.folder / "reader.kubeconfig"

    @property
    def pki(self) -> Pki:
        if self._pki is None:
            raise ComponentFailed("the control plane wasn't started")
        return self._pki

    @property
    def ca_file(self) -> Path:
        return self.pki.ca.cert

    def issue_node_credentials(self, name: str, folder: Path) -> tuple[Credentials, Credentials]:
        """(client, serving) certificates for a node, written into `folder`."""
        return self.pki.issue_node_credentials(name, folder)

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator. With `check` a failure raises ComponentFailed."""
        done = subprocess.run(
            [str(self._binaries.kubectl), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=plain_environment({"KUBECONFIG": str(self.kubeconfig)}),
        )
        if check and done.returncode != 0:
            raise ComponentFailed(f"kubectl {' '.join(args)} failed: {done.stderr.strip()}")
        return done

    def start(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start all and wait until ready. Ports that are taken meanwhile are replaced, a few times."""
        private_dir(self.folder)
        private_dir(self.folder / "logs")
        private_dir(self.folder / "etcd")
        self._pki = make_pki(self.folder / "pki", api_hosts=API_HOSTS)
        for attempt in range(1, START_TRIES + 1):
            self._ports = Ports(*free_ports(5))
            self._write_kubeconfigs()
            try:
                self._start_all(progress)
            except PortTaken:
                self.stop()
                if attempt == START_TRIES:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        self.children.stop_all()

    def check(self) -> None:
        """Raise ComponentFailed if one has died."""
        self.children.check()

    def health(self) -> dict[str, bool]:
        """Which components answer that they are well."""
        return {name: self._healthy(name) for name in COMPONENTS}

    def stop_component(self, name: str, *, kill: bool = False) -> None:
        """Stop one component, as a fault."""
        self.children.stop(name, grace_s=0.0 if kill else 10.0)

    def start_component(self, name: str) -> None:
        """Start one component (again) and wait until it is ready."""
        child = self.children.add(self._launch(name))
        wait_until(
            lambda: self._healthy(name),
            what=name,
            deadline_s=READY_DEADLINE_S,
            check=self.check,
            child=child,
        )

    def _start_all(self, progress: Callable[[str], None]) -> None:
        for name in COMPONENTS[:2]:
            progress(f"starting {name}")
            self.start_component(name)
        progress("starting kube-controller-manager and kube-scheduler")
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(READER_RIGHTS))
        for name in COMPONENTS[2:]:
            self.children.add(self._launch(name))
        for name in COMPONENTS[2:]:
            wait_until(
                lambda name=name: self._healthy(name),  # type: ignore[misc]
                what=name,
                deadline_s=READY_DEADLINE_S,
                check=self.check,
                child=self.children.get(name),
            )
        wait_until(
            self._pods_possible, what="service account default", deadline_s=READY_DEADLINE_S, check=self.check
        )

    def _pods_possible(self) -> bool:
        """Pods are refused until the namespace has its service account."""
        return self._answers(f"{self.server}/api/v1/namespaces/default/serviceaccounts/default")

    def _write_kubeconfigs(self) -> None:
        users = {
            "kubeconfig": ("admin", self.pki.admin),
            "reader.kubeconfig": ("reader", self.pki.reader),
            "controller-manager.kubeconfig": ("kube-controller-manager", self.pki.controller_manager),
            "scheduler.kubeconfig": ("kube-scheduler", self.pki.scheduler),
        }
        for file, (user, credentials) in users.items():
            write_kubeconfig(
                self.folder / file, server=self.server, ca=self.ca_file, user=user, credentials=credentials
            )

    def _launch(self, name: str) -> Child:
        flags = FLAGS[name](self.folder, self._ports, self.pki)
        return start(
            name,
            [str(self._binaries.path(name)), *flags],
            log=self.folder / "logs" / f"{name}.log",
            env=plain_environment({"HOME": str(self.folder)}),
            cwd=self.folder,
        )

    def _healthy(self, name: str) -> bool:
        return self._answers(
            {
                "etcd": f"https://{LOOPBACK}:{self._ports.etcd}/health",
                "kube-apiserver": f"{self.server}/readyz",
                "kube-controller-manager": f"https://{LOOPBACK}:{self._ports.controller_manager}/healthz",
                "kube-scheduler": f"https://{LOOPBACK}:{self._ports.scheduler}/healthz",
            }[name],
            etcd=name == "etcd",
        )

    def _answers(self, url: str, *, etcd: bool = False) -> bool:
        """Whether a GET with our certificate returns 200."""
        authority, own = (self.pki.etcd_ca, self.pki.etcd_client) if etcd else (self.pki.ca, self.pki.admin)
        context = ssl.create_default_context(cafile=str(authority.cert))
        context.load_cert_chain(own.cert, own.key)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError, ValueError):
            return False
