"""`make images`: builds the three images with the engine that is there, and prints what each weighs.

Docker, Podman and Buildah build the same Dockerfiles. What differs is told by `Engine`: how an image is written to a
file, and how its base is looked at. A build reaches the package index as pip does on this machine: pip's settings are
handed on as build secrets, which are in no layer. Sizes are those of the layers' uncompressed tar files, read from the
image itself, so they mean the same with each engine. Nothing but the standard library is needed.
"""

import argparse
import contextlib
import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parents[1]
MEMBER_OF: Final = {"stt": "stt_pod", "operator": "operator", "gateway": "agent"}
"""Image -> the member that it runs."""

LIMIT_MB: Final = {"stt": 500, "operator": 220, "gateway": 150}
"""Image -> most megabytes (10^6 bytes) on top of the base; with CUDA, the libraries alone are more."""

PYTHON_IMAGE: Final = "docker.io/library/python:3.13-slim-trixie"
CUDA_MACHINE: Final = "x86_64"  # CTranslate2's wheels for other machines have no CUDA in them
CERTIFICATES: Final = "/run/secrets/certificates"  # where a build step finds pip's certificates


class BuildError(Exception):
    """No image was built; the message says why, and what to do if that is known."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that builds images: `docker`, `podman` or `buildah`, as *command* with options of its own."""

    name: str
    command: tuple[str, ...]
    build_options: tuple[str, ...] = ()

    def build(self, tag: str, dockerfile: Path, context: Path, options: Sequence[str] = ()) -> None:
        """Build *dockerfile* as *tag*, its progress on stderr. Raises BuildError."""
        words = (*self.command, "build", *self.build_options, *options)
        argv = [*words, "--tag", tag, "--file", str(dockerfile), str(context)]
        environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
        if subprocess.run(argv, check=False, stdout=sys.stderr, env=environ).returncode != 0:
            raise BuildError(f"{tag} was not built; {self.name} says why above")

    def save(self, tag: str, archive: Path, *, name: str | None = None) -> None:
        """Write the image to *archive*, in the form of `docker save`. Raises BuildError.

        name: what Buildah calls it in there, since it knows a short *tag* as localhost/*tag*; default: *tag*.
        """
        archive.unlink(missing_ok=True)
        if self.name == "buildah":
            self._output("push", "--quiet", tag, f"docker-archive:{archive}:{name or tag}")
        else:
            self._output("save", "--output", str(archive), tag)

    def identity_of(self, tag: str) -> str:
        """The image's id, which is another one as soon as anything in it is. Raises BuildError."""
        if self.name == "buildah":
            return str(json.loads(self._output("inspect", "--type", "image", tag))["FromImageID"])
        return self._output("image", "inspect", "--format", "{{.Id}}", tag)

    def layers_of(self, tag: str) -> tuple[str, ...]:
        """The digests of an image's uncompressed layers, the first one first. Raises BuildError."""
        if self.name == "buildah":
            told = json.loads(self._output("inspect", "--type", "image", tag))["OCIv1"]["rootfs"]["diff_ids"]
        else:
            told = json.loads(self._output("image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))
        return tuple(told)

    def has(self, tag: str) -> bool:
        """Whether the engine's own store holds *tag*."""
        try:
            self.layers_of(tag)
        except BuildError:
            return False
        return True

    def pull(self, tag: str) -> None:
        """Fetch *tag* from its registry. Raises BuildError."""
        self._output("pull", "--quiet", tag)

    def _output(self, *words: str) -> str:
        done = subprocess.run([*self.command, *words], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"{self.name} {words[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


def find_engine(name: str | None = None) -> Engine:
    """The engine *name*, or the first that works: Docker's program is often there without its engine. Raises BuildError."""
    asks = {"docker": ("docker", "info"), "podman": ("podman", "info"), "buildah": ("buildah", "--version")}
    if name is not None and name not in asks:
        raise BuildError(f"ENGINE={name!r} is not known; it may be {', '.join(asks)}")
    for candidate, ask in asks.items():
        if name not in {None, candidate} or shutil.which(candidate) is None:
            continue
        if subprocess.run(ask, check=False, capture_output=True).returncode == 0:
            return Engine(candidate, (candidate,))
    raise BuildError(
        f"{name or 'none of docker, podman and buildah'} is here and works; "
        "on Debian and Ubuntu: apt install buildah"
    )


def version() -> str:
    """The version of all members, which is the images' default tag."""
    project = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


# --- Building ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build: *images* of MEMBER_OF, tagged `<prefix>/<image>:<tag>`, from the base *python_image*."""

    images: tuple[str, ...] = tuple(MEMBER_OF)
    prefix: str = "everwarm"
    tag: str = ""
    python_image: str = PYTHON_IMAGE
    accelerator: str = "cpu"
    platform: str = ""
    """Such as linux/arm64; the machine's own when empty."""
    root: Path = ROOT
    """The sources; another checkout makes another version's images."""

    def name(self, image: str) -> str:
        """The image's name and tag."""
        variant = "-cuda" if self.accelerator == "cuda" else ""
        return f"{self.prefix}/{image}:{self.tag or version()}{variant}"


@dataclass(frozen=True, slots=True)
class Weight:
    """What an image weighs, in bytes of its uncompressed layers."""

    base: int
    on_top: int


def build_images(engine: Engine, plan: Plan) -> dict[str, Weight]:
    """Build what *plan* says; what each image weighs, by its name. Raises BuildError."""
    if plan.accelerator == "cuda" and (plan.platform or platform.machine()).rpartition("/")[2] not in {
        CUDA_MACHINE,
        "amd64",
    }:
        raise BuildError("the CUDA variant is for x86-64 alone: elsewhere CTranslate2's wheels have no CUDA")
    if not engine.has(plan.python_image):
        engine.pull(plan.python_image)
    weights = {}
    with _secrets() as secrets:
        for image in plan.images:
            engine.build(
                plan.name(image),
                plan.root / f"Dockerfile.{image}",
                plan.root,
                [*options(plan, image), *secrets],
            )
            weights[plan.name(image)] = weigh(engine, plan.name(image), plan.python_image)
    return weights


def options(plan: Plan, image: str) -> list[str]:
    """The options of one build."""
    arguments = {"PYTHON_IMAGE": plan.python_image, "VERSION": version(), "REVISION": _revision()}
    if image == "stt":
        arguments["ACCELERATOR"] = plan.accelerator
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    return [*words, "--platform", plan.platform] if plan.platform else words


def weigh(engine: Engine, tag: str, base: str) -> Weight:
    """Look into the image *tag*, made from *base*. Raises BuildError."""
    foundation = engine.layers_of(base)
    with tempfile.TemporaryDirectory(prefix="everwarm-image-") as folder:
        archive = Path(folder) / "image.tar"
        engine.save(tag, archive)
        sizes = layer_sizes(archive)
    if tuple(digest for digest, _ in sizes[: len(foundation)]) != foundation:
        raise BuildError(f"{tag} does not stand on {base}, so what is on top of it cannot be told")
    return Weight(
        base=sum(size for _, size in sizes[: len(foundation)]),
        on_top=sum(size for _, size in sizes[len(foundation) :]),
    )


def layer_sizes(archive: Path) -> list[tuple[str, int]]:
    """(digest, bytes) of each uncompressed layer of the one image in *archive*, the first one first."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> IO[bytes]:
            member = tar.getmember(name)
            while member.issym():  # a layer that an earlier image of the archive has already
                member = tar.getmember(os.path.normpath(Path(member.name).parent / member.linkname))
            content = tar.extractfile(member)
            assert content is not None, f"{name} is a file"
            return content

        (manifest,) = json.load(read("manifest.json"))
        digests = json.load(read(manifest["Config"]))["rootfs"]["diff_ids"]
        return [
            (digest, _uncompressed_size(read(layer)))
            for digest, layer in zip(digests, manifest["Layers"], strict=True)
        ]


def _uncompressed_size(content: IO[bytes]) -> int:
    is_compressed = content.read(2) == b"\x1f\x8b"
    content.seek(0)
    stream = gzip.GzipFile(fileobj=content) if is_compressed else content
    return sum(len(chunk) for chunk in iter(lambda: stream.read(1 << 20), b""))


def _revision() -> str:
    """The commit that is built, or "unknown"."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"


# --- The index ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _secrets() -> Iterator[list[str]]:
    """Options that let a build step use the package index as pip does here; none when pip has no settings."""
    settings = pip_settings(os.environ)
    if not settings:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="everwarm-build-") as folder:
        words = []
        if certificates := settings.get("cert"):
            words += ["--secret", f"id=certificates,src={certificates}"]
            settings["cert"] = CERTIFICATES
        config = Path(folder) / "pip.conf"
        config.write_text(
            "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()), encoding="utf-8"
        )
        yield [*words, "--secret", f"id=pip.conf,src={config}"]


def pip_settings(environ: Mapping[str, str], *, python: str = sys.executable) -> dict[str, str]:
    """Pip's index and certificates on this machine; variables win over its configuration, as in pip."""
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        check=False,
        capture_output=True,
        text=True,
        env=dict(environ),
    )
    found = re.findall(r"^(:?[a-z]+:?)\.(index-url|cert)='(.*)'$", listed.stdout, flags=re.MULTILINE)
    ranked = sorted(found, key=lambda entry: entry[0] == ":env:")
    return {key: value for _, key, value in ranked}


# --- The command ---------------------------------------------------------------------------------------------------


def table(weights: Mapping[str, Weight]) -> str:
    """Name, base, on top of it and total of each image, in megabytes (10^6 bytes)."""
    rows: list[tuple[str, ...]] = [("image", "base MB", "on top MB", "total MB")]
    rows += [
        (name, *(f"{size / 1e6:.0f}" for size in (weight.base, weight.on_top, weight.base + weight.on_top)))
        for name, weight in weights.items()
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:<{width}}" + "".join(f"{cell:>11}" for cell in cells) for name, *cells in rows)


def too_heavy(plan: Plan, weights: Mapping[str, Weight]) -> list[str]:
    """A sentence for each image that is over its limit; with CUDA none is set."""
    if plan.accelerator == "cuda":
        return []
    return [
        f"{plan.name(image)} has more than {LIMIT_MB[image]} MB on top of its base"
        for image in plan.images
        if weights[plan.name(image)].on_top > LIMIT_MB[image] * 1e6
    ]


def main() -> int:
    """Build by the variables of `make images`, and the images named on the command line if any are."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(MEMBER_OF)}; default: all")
    chosen = tuple(parser.parse_args().images)
    if strangers := set(chosen) - set(MEMBER_OF):
        parser.error(f"no image is called {', '.join(sorted(strangers))}")
    accelerator = os.environ.get("ACCELERATOR") or "cpu"
    if accelerator not in {"cpu", "cuda"}:
        parser.error(f"ACCELERATOR={accelerator!r} is not known; it may be cpu or cuda")
    plan = Plan(
        images=chosen or (("stt",) if accelerator == "cuda" else tuple(MEMBER_OF)),
        prefix=os.environ.get("PREFIX") or "everwarm",
        tag=os.environ.get("TAG") or "",
        python_image=os.environ.get("PYTHON_IMAGE") or PYTHON_IMAGE,
        accelerator=accelerator,
        platform=os.environ.get("PLATFORM") or "",
    )
    try:
        weights = build_images(find_engine(os.environ.get("ENGINE") or None), plan)
    except BuildError as error:
        sys.stderr.write(f"make images: {error}\n")
        return 1
    sys.stdout.write(table(weights) + "\n")
    for sentence in (heavy := too_heavy(plan, weights)):
        sys.stderr.write(f"make images: {sentence}\n")
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
