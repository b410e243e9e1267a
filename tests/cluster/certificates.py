"""Certificates and kubeconfigs of a test's control plane, made by the `openssl` program.

Elliptic-curve keys, because they take milliseconds. Whom a client certificate speaks for is its subject: the common
name is the user and each organization a group, which is all that Kubernetes knows of users.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OPENSSL_CONFIG: Final = """\
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of its own for one control plane; its files are in *folder*, for the owner only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700)
        (folder / "openssl.cnf").write_text(OPENSSL_CONFIG, encoding="utf-8")
        self.own: Final = self._make("ca", "ca", "/CN=everwarm-tests")

    def server(self, name: str, alternatives: Sequence[str]) -> Certificate:
        """A certificate for a server known by *alternatives*, such as "DNS:localhost" or "IP:127.0.0.1"."""
        return self._make(name, "leaf", f"/CN={name}", "-addext", f"subjectAltName={','.join(alternatives)}")

    def client(self, user: str, groups: Sequence[str] = ()) -> Certificate:
        """A certificate for *user* of *groups*."""
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        number = len(list(self._folder.iterdir()))
        return self._make(f"client-{number}", "leaf", subject)

    def _make(self, name: str, section: str, subject: str, *extra: str) -> Certificate:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise FileNotFoundError(
                "the tests' control plane needs the program `openssl` for its certificates"
            )
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        content = ["-config", "openssl.cnf", "-extensions", section, "-subj", subject]
        signer = [] if name == "ca" else ["-CA", "ca.crt", "-CAkey", "ca.key"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        done = subprocess.run(
            [openssl, "req", "-x509", *kind, *content, *signer, *files, *extra],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"openssl (3 or newer is needed) made no certificate:\n{done.stderr}")
        return Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")


def write_kubeconfig(
    path: Path, url: str, authority: Path, user: Certificate | str, *, namespace: str = "default"
) -> Path:
    """A kubeconfig at *path* for *user*, a certificate or a bearer token; it holds all it needs, so it can be moved."""
    credentials: Mapping[str, str] = (
        {"token": user}
        if isinstance(user, str)
        else {"client-certificate-data": _data(user.certificate), "client-key-data": _data(user.key)}
    )
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "tests", "cluster": {"server": url, "certificate-authority-data": _data(authority)}}
        ],
        "users": [{"name": "tests", "user": credentials}],
        "contexts": [
            {"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}
        ],
        "current-context": "tests",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML too
    return path


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
