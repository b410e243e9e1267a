"""Images on a machine with no container engine and no registry: built by Buildah, handed to containerd as files.

The base of the Dockerfiles, python:3.13-slim-trixie, cannot be pulled everywhere, so one like it is made from the same
Debian: Python is Debian's own instead of one compiled for the image, and the paths that Dockerfiles rely on are the
same. Everything is in a store of its own below `kept()`, and stays there for the next run.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from images.build import BuildError, Engine
from tests.cluster.machine import NodeUnavailable, kept, run

BASE_IMAGE: Final = "docker.io/library/python:3.13-slim-trixie"
SUITE: Final = "trixie"
BASE_PACKAGES: Final = ("ca-certificates", "python3", "python3-pip", "python3-venv")
NOT_IN_AN_IMAGE: Final = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
BASE_DOCKERFILE: Final = """\
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
CMD ["python3"]
"""


def engine() -> Engine:
    """Buildah with a store of its own; steps run in a chroot on the host's network, since here may be no other."""
    store = kept() / "buildah"
    return Engine(
        "buildah",
        ("buildah", "--root", str(store / "root"), "--runroot", str(store / "run")),
        # --force-rm: a step that fails would keep its mounts otherwise.
        ("--isolation=chroot", "--network=host", "--pull-never", "--layers", "--force-rm"),
    )


def make_base_image() -> str:
    """The name of the Dockerfiles' base, which is made if it is not there: a minute. Raises NodeUnavailable."""
    if not engine().has(BASE_IMAGE):
        with scratch_folder() as folder:
            _debian_with_python(folder / "rootfs")
            run("tar", "-C", folder / "rootfs", "-cf", folder / "rootfs.tar", ".")
            shutil.rmtree(folder / "rootfs")
            build(BASE_IMAGE, BASE_DOCKERFILE, folder)
    return BASE_IMAGE


def build(tag: str, dockerfile: str, context: Path) -> None:
    """Build an image from the text of a Dockerfile; raises NodeUnavailable."""
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile", encoding="utf-8") as file:
        file.write(dockerfile)
        file.flush()
        try:
            engine().build(tag, Path(file.name), context)
        except BuildError as error:
            raise NodeUnavailable(str(error)) from error


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder inside `with`, beside the images: /tmp may be small, or in memory.

    Its name tells whose it is, so that what a process left that was killed, up to an image's archive, goes here too.
    """
    kept().mkdir(parents=True, exist_ok=True)
    for left in kept().glob("scratch-*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"scratch-{os.getpid()}-", dir=kept()) as folder:
        yield Path(folder)


def full_name(image: str) -> str:
    """An image's name as the kubelet completes it: everwarm/stt:1 -> docker.io/everwarm/stt:1."""
    registry, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif registry != "localhost" and not set(registry) & set(".:"):
        image = f"docker.io/{image}"
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _debian_with_python(root: Path) -> None:
    """A minimal Debian, laid out for a Dockerfile like the official Python image."""
    run("debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", SUITE, root)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        mark.unlink()  # pip may install into an image
    for name in NOT_IN_AN_IMAGE:
        shutil.rmtree(root / name)
        (root / name).mkdir()
