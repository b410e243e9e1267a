"""A control plane of its own: etcd, API server, controller manager and scheduler as processes of the tests.

What is real is everything above the node: admission, RBAC, CRDs with their CEL rules, server-side apply, watches,
Deployments, garbage collection, scheduling. There is no node; a test that needs one makes a Node object, or starts a
`process_kubelet`. (`node.py` puts a real one under it.) Nothing needs root: etcd listens on a Unix socket, the API server on a free loopback port, and the
other two on nothing.

It leaves nothing behind: the parts end with the process that started them, even when it is killed, and on the way
out their data is removed. Logs stay in `logs`, since pytest keeps its last folders for whoever looks for the reason of a failure.
"""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster.binaries import Binaries, NodePart, Part, find_binaries
from tests.cluster.certificates import Authority, Certificate, write_kubeconfig
from tests.support.pods import free_port

START_TIMEOUT_S: Final = 90.0  # 4 s on an idle machine of two cores
REQUEST_TIMEOUT_S: Final = 30.0
LOOPBACK: Final = "127.0.0.1"
SERVICE_CIDR: Final = "10.96.0.0/16"
API_NAMES: Final = (
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
    f"IP:{LOOPBACK}",
    "IP:10.96.0.1",  # the first one of SERVICE_CIDR, which the API server takes for itself
)
CONTROLLER_FLAGS: Final = (
    "--leader-elect=false",
    "--secure-port=0",
    # By default they send 20 and 50 requests a second: start-up takes 4 s longer, and a thousand models minutes.
    "--kube-api-qps=1000",
    "--kube-api-burst=2000",
)


TETHER: Final = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)}, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else the parent has died before the call above
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class PartEnded(Exception):
    """A part of the control plane that should run has ended; the message has the end of its log."""


class Refused(Exception):
    """The API server answered *status* (an HTTP status of 400 or above) with *message*."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class PartProcess:
    """One part: a process and the log of all its lives; it ends with this process, even when that is killed."""

    def __init__(self, part: Part | NodePart | str, command: Sequence[str], folder: Path) -> None:
        self.part = part
        self.log = folder / "logs" / f"{part}.log"
        self._command = _tethered(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._process is None, f"{self.part} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def check(self) -> None:
        """Raise PartEnded if it should run and does not."""
        if self._process is not None and (code := self._process.poll()) is not None:
            end = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
            raise PartEnded(f"{self.part} ended with code {code}; the end of {self.log}:\n{end}")

    def kill(self) -> None:
        """SIGKILL, if it runs: an outage announces nothing, and at the end there is nothing worth keeping."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()

    def end(self, *, within_s: float) -> None:
        """SIGTERM, if it runs, and SIGKILL if that is not enough: for a part that keeps something."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
            self.kill()


class ControlPlane:
    """A running control plane; made by `running_control_plane`."""

    def __init__(
        self,
        folder: Path,
        binaries: Binaries,
        flags: Mapping[Part, Sequence[str]],
        *,
        node_ip: str | None = None,
    ) -> None:
        self._folder = folder
        self._node_ip = node_ip
        self._address = node_ip or LOOPBACK
        self._port = free_port()
        self._numbers = itertools.count(1)
        (folder / "logs").mkdir(parents=True)
        (folder / "kubeconfigs").mkdir(mode=0o700)
        self.authority: Final = Authority(folder / "certificates")
        """Signs the certificates of everybody here."""
        self._admin = self.authority.client("admin", ["system:masters"])
        self.tls: Final = ssl.create_default_context(cafile=str(self.authority.own.certificate))
        """What an HTTP client of a test's own needs to ask as admin."""
        self.tls.load_cert_chain(self._admin.certificate, self._admin.key)
        self.kubeconfig: Final = self._write_kubeconfig("admin", self._admin)
        """A kubeconfig that may do everything."""
        self._processes = {
            part: PartProcess(part, [*binaries.command(part), *own, *flags.get(part, ())], folder)
            for part, own in self._flags().items()
        }

    @property
    def url(self) -> str:
        """The API server's address, which stays the same over an outage."""
        return f"https://{self._address}:{self._port}"

    # --- Who is asking ---------------------------------------------------------------------------------------------

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of a person: by itself a *user* may do next to nothing, bind roles to them or a group."""
        return self._write_kubeconfig(user, self.authority.client(user, groups))

    def kubeconfig_of_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig of an existing ServiceAccount, whose rights are exactly those bound to it.

        The token comes from the API, as the kubelet gets a pod's; *namespace* is the kubeconfig's default one.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = str(self.request("POST", path, asked)["status"]["token"])
        return self._write_kubeconfig(f"{namespace}-{name}", token, namespace=namespace)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request as admin, for a test's own set-up and for what it asserts; returns the answer's JSON.

        body: JSON, sent as a JSON merge patch if *method* is PATCH. Raises Refused, or OSError while the API server
        does not answer.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection = http.client.HTTPSConnection(
            self._address, self._port, timeout=REQUEST_TIMEOUT_S, context=self.tls
        )
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body), {"content-type": kind}
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        except http.client.HTTPException as error:  # it died in the middle of an answer
            raise ConnectionResetError(repr(error)) from error
        finally:
            connection.close()
        if answer.status >= 400:
            is_status = text.startswith("{")
            raise Refused(answer.status, json.loads(text)["message"] if is_status else text)
        return json.loads(text) if text.startswith("{") else text

    def wait_for(
        self, what: str, condition: Callable[[], object], *, within_s: float = START_TIMEOUT_S
    ) -> None:
        """Return once *condition* holds; a refusal or no answer counts as not yet.

        Raises PartEnded as soon as a part has ended, and TimeoutError, which says that there was no *what*.
        """
        deadline = time.monotonic() + within_s
        while not self._holds(condition):
            for process in self._processes.values():
                process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} within {within_s:.0f} s; logs are in {self._folder / 'logs'}")
            time.sleep(0.02)  # polls a condition

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Make a namespace; returns once pods can be made in it, which takes its ServiceAccount."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.request(
            "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        )
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        self.wait_for(f"ServiceAccount in {name}", lambda: self.request("GET", account))

    # --- Outages ---------------------------------------------------------------------------------------------------

    def stop_apiserver(self) -> None:
        """Kill the API server: connections break, and nobody listens on its port. The other parts wait for it."""
        self._processes["kube-apiserver"].kill()

    def start_apiserver(self) -> None:
        """Start it again, on the same port and with all its data, and wait until it is ready.

        Not from a worker thread: the kernel ends a part with the thread that started it.
        """
        self._processes["kube-apiserver"].start()
        self.wait_for("ready API server", lambda: self.request("GET", "/readyz") == "ok")

    # --- The parts -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all parts and wait until Deployments and pods can be made."""
        self._processes["etcd"].start()
        self.start_apiserver()
        self._processes["kube-controller-manager"].start()
        self._processes["kube-scheduler"].start()
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.wait_for("default ServiceAccount", lambda: self.request("GET", account))

    def close(self) -> None:
        """End all parts and remove everything but their logs."""
        for process in reversed(self._processes.values()):
            process.kill()
        (self._folder / "etcd.sock").unlink(missing_ok=True)
        for data in ("etcd", "certificates", "kubeconfigs"):
            shutil.rmtree(self._folder / data, ignore_errors=True)

    def _flags(self) -> dict[Part, tuple[str, ...]]:
        """The flags of each part, in the order in which they start. Certificates are made on the way."""
        service_endpoint = (
            "lease" if self._node_ip else "none"
        )  # a Service's endpoint may not be a loopback address
        etcd = f"unix://{self._folder}/etcd.sock"
        ca = self.authority.own
        server = self.authority.server("apiserver", [*API_NAMES, f"IP:{self._address}"])
        tokens = self.authority.server("tokens", API_NAMES)  # signs ServiceAccounts' tokens
        controllers = self.authority.client("system:kube-controller-manager")
        scheduler = self.authority.client("system:kube-scheduler")
        return {
            "etcd": (
                "--log-level=warn",
                "--unsafe-no-fsync",  # nothing here is to survive a power cut
                f"--data-dir={self._folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                "--advertise-client-urls=http://127.0.0.1:0",  # demanded, but nobody reads it
                "--listen-peer-urls=http://127.0.0.1:0",
            ),
            "kube-apiserver": (
                f"--etcd-servers={etcd}",
                f"--bind-address={self._address}",
                f"--advertise-address={self._address}",
                f"--endpoint-reconciler-type={service_endpoint}",
                f"--secure-port={self._port}",
                f"--tls-cert-file={server.certificate}",
                f"--tls-private-key-file={server.key}",
                f"--client-ca-file={ca.certificate}",
                f"--service-account-key-file={tokens.certificate}",
                f"--service-account-signing-key-file={tokens.key}",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-cluster-ip-range={SERVICE_CIDR}",
                "--authorization-mode=Node,RBAC",  # Node: what a kubelet may do with its own pods' objects
                "--allow-privileged=true",  # as everywhere: who may be privileged is for PodSecurity to say
                "--enable-admission-plugins=PodSecurity",  # one of the defaults, named because tests rely on it
                # The defaults (400 and 200) are for a machine that thousands share; here a queue only adds noise.
                "--max-requests-inflight=3000",
                "--max-mutating-requests-inflight=1000",
                # How it asks a kubelet for logs, if there is one.
                f"--kubelet-certificate-authority={ca.certificate}",
                f"--kubelet-client-certificate={self._admin.certificate}",
                f"--kubelet-client-key={self._admin.key}",
                "--kubelet-preferred-address-types=InternalIP",
            ),
            "kube-controller-manager": (
                *CONTROLLER_FLAGS,
                f"--kubeconfig={self._write_kubeconfig('controller-manager', controllers)}",
                f"--root-ca-file={ca.certificate}",
                f"--service-account-private-key-file={tokens.key}",
                f"--cluster-signing-cert-file={ca.certificate}",
                f"--cluster-signing-key-file={ca.key}",
                "--use-service-account-credentials=true",
            ),
            "kube-scheduler": (
                *CONTROLLER_FLAGS,
                f"--kubeconfig={self._write_kubeconfig('scheduler', scheduler)}",
            ),
        }

    def _write_kubeconfig(self, name: str, user: Certificate | str, *, namespace: str = "default") -> Path:
        path = self._folder / "kubeconfigs" / f"{name.replace(':', '-')}-{next(self._numbers)}"
        return write_kubeconfig(path, self.url, self.authority.own.certificate, user, namespace=namespace)

    @staticmethod
    def _holds(condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except (OSError, Refused):
            return False


def _tethered(command: Sequence[str]) -> list[str]:
    """*command*, such that Linux kills it at the death of this process.

    Unlike `everwarm.platform.tether` it asks for SIGKILL: an orderly end of the API server takes a minute once etcd
    is gone.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", TETHER, str(os.getpid()), *command]


@contextlib.contextmanager
def running_control_plane(
    folder: Path, *, flags: Mapping[Part, Sequence[str]] | None = None
) -> Iterator[ControlPlane]:
    """A control plane inside `with`, its files in *folder*, which is made; *flags* are added to those of a part.

    Raises BinariesUnavailable, or PartEnded with the log of a part that could not start.
    """
    plane = ControlPlane(folder, find_binaries(), flags or {})
    try:
        plane.start()
        yield plane
    finally:
        plane.close()
