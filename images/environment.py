"""Inside a Dockerfile: makes the environment of one image, /opt/everwarm, from the lock and nothing else.

The three Dockerfiles differ in the members they hold and in little else, so the steps are here, in this order:
`dependencies` (what the members' pyproject.toml ask for, as wheels, versions and hashes by the lock), `members` (the
members themselves, as wheels; their files are also laid into a folder of their own, so that a change of the source
changes a small layer and no large one), and in the final stage `base` (the base image without its installers, its
standard library byte-compiled, and with a user to run as). The root of a running container is read-only: what is not compiled now would be
compiled at every start.

It runs on the base image's bare Python, so it imports nothing but the standard library.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

SOURCE: Final = Path("/src")
BUILDER: Final = SOURCE / ".venv"  # uv and hatchling; stays in the build stage
ENVIRONMENT: Final = Path("/opt/everwarm")
CUDA_LIBRARIES: Final = ENVIRONMENT / "cuda"
MEMBERS_LAYER: Final = Path("/layers/members")
LOCK: Final = "requirements.lock"
CUDA_LOCK: Final = "requirements-cuda.lock"
SECRETS: Final = Path("/run/secrets")  # where build secrets are mounted, if any were given
CACHE: Final = Path("/var/cache/everwarm")
USER: Final = 65532  # of no meaning on any node; the Dockerfiles name it as a number
INSTALLERS: Final = (
    "pip",
    "setuptools",
    "wheel",
    "pkg_resources",
    "_distutils_hack",
    "distutils-precedence.pth",
)
LEAST_SAVING: Final = 100_000  # bytes; CTranslate2's extension alone saves 67 MB of 69
UNUSED_PARTS: Final = (
    "onnxruntime/capi/libonnxruntime.so*",  # for programs in C; the Python module is linked with a copy of its own
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "numpy/f2py",
    "numpy/_core/_simd*.so",  # for numpy's own tests
    # For compilers and type checkers:
    "**/*.a",
    "**/*.h",
    "**/*.pxd",
    "**/*.pyi",
    "**/*.pyx",
)
"""Of site-packages: nothing in an image imports any of it."""
TRIMMED_MODULES: Final = ("onnxruntime",)
UNUSED_MODULES: Final = (
    r"/(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|site-packages|dist-packages)/"
)


def install_dependencies(members: list[str], *, uv_version: str, accelerator: str) -> None:
    """Everything the *members* ask for, and for the *accelerator* "cuda" its libraries."""
    _run(sys.executable, "-m", "venv", BUILDER)
    _run(BUILDER / "bin/python", "-m", "pip", "install", "--quiet", f"uv=={uv_version}")
    _run(sys.executable, "-m", "venv", "--without-pip", ENVIRONMENT)
    _install(BUILDER, "--constraints", LOCK, "hatchling")
    _install(ENVIRONMENT, "--constraints", LOCK, *asked_for(SOURCE / member for member in members))
    if strangers := _installed(ENVIRONMENT) - pinned(SOURCE / LOCK):
        sys.exit(f"not in {LOCK}, so not verified: {', '.join(sorted(strangers))}; run `make lock`")
    if accelerator == "cuda":
        _install(ENVIRONMENT, "--require-hashes", "--target", CUDA_LIBRARIES, "--requirements", CUDA_LOCK)
    _trim(ENVIRONMENT)


def install_members(members: list[str]) -> None:
    """The *members* themselves, into the environment and, their files alone, into MEMBERS_LAYER."""
    before = set(ENVIRONMENT.rglob("*"))
    for member in members:
        wheel = ("-m", "hatchling", "build", "--target", "wheel", "--directory", SOURCE / "dist")
        _run(BUILDER / "bin/python", *wheel, cwd=SOURCE / member)
    _install(ENVIRONMENT, "--no-deps", "--no-index", *sorted((SOURCE / "dist").glob("*.whl")))
    _compile(ENVIRONMENT)
    for path in sorted(set(ENVIRONMENT.rglob("*")) - before):
        if path.is_file():
            place = MEMBERS_LAYER / path.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)


def prepare_base() -> None:
    """The base image, fit to run and not to build: no installer, a standard library that is compiled, a user."""
    library = sysconfig.get_path("stdlib")
    _run(sys.executable, "-m", "compileall", "-q", "-x", UNUSED_MODULES, library)
    folders = {
        Path(sysconfig.get_path("purelib")),
        Path(library) / "site-packages",
        Path("/usr/lib/python3/dist-packages"),
    }
    for folder in folders:
        for name in INSTALLERS:
            for path in (folder / name, *folder.glob(f"{name}-*-info"), *folder.glob(f"{name}-*.egg-info")):
                _remove(path)
    _remove(Path(library) / "ensurepip")
    _remove(Path("/usr/share/python-wheels"))  # where Debian keeps the wheels that ensurepip installs
    for program in {
        *Path("/usr/local/bin").glob("pip*"),
        *Path("/usr/bin").glob("pip*"),
        Path("/usr/bin/wheel"),
    }:
        _remove(program)
    for file, line in {
        "/etc/passwd": f"everwarm:x:{USER}:{USER}::/tmp:/usr/sbin/nologin\n",
        "/etc/group": f"everwarm:x:{USER}:\n",
    }.items():
        with Path(file).open("a", encoding="utf-8") as accounts:
            accounts.write(line)
    CACHE.mkdir()
    os.chown(CACHE, USER, USER)


def asked_for(members: Iterable[Path]) -> list[str]:
    """The dependencies that the members at these paths declare, other members left out."""
    found = set()
    for member in members:
        project = tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        found |= {item for item in project["dependencies"] if not re.match(r"everwarm\b", item)}
    return sorted(found)


def pinned(lock: Path) -> set[str]:
    """`name==version` of everything in *lock*, names in the form that they are compared in."""
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {f"{_normal(name)}=={version}" for name, version in pins}


def leave_out_unused(library: Path) -> None:
    """Remove UNUSED_PARTS from *library*, a site-packages."""
    for path in [path for pattern in UNUSED_PARTS for path in library.glob(pattern)]:
        _remove(path)


# --- Steps ---------------------------------------------------------------------------------------------------------


def _install(environment: Path, *what: str | Path) -> None:
    """Wheels only: an image is the same wherever it is built, and there is no compiler in the base."""
    words = (
        "pip",
        "install",
        "--quiet",
        "--no-build",
        "--link-mode",
        "copy",
        "--no-cache",
        "--python",
        environment,
    )
    _run(SOURCE / ".ci/uv", *words, *what)


def _installed(environment: Path) -> set[str]:
    return {
        f"{_normal(found.name)}=={found.version}"
        for found in distributions(path=[str(_site_packages(environment))])
    }


def _site_packages(environment: Path) -> Path:
    return next((environment / "lib").glob("python3*")) / "site-packages"


def _trim(environment: Path) -> None:
    """Leave out what libraries bring along and nothing uses: tests, UNUSED_PARTS, debug symbols; compile what stays."""
    library = _site_packages(environment)
    for folder in [path for path in environment.rglob("tests") if path.is_dir()]:
        _remove(folder)
    leave_out_unused(library)
    for module in [name for name in TRIMMED_MODULES if (library / name).exists()]:
        # As below. -B: what is compiled by an import would be compared with its source at every start.
        _run(environment / "bin/python", "-B", "-c", f"import {module}")
    stripped = [path for path in environment.rglob("*.so*") if path.is_file() and _strip(path)]
    # A library that did not survive it should end the build, and not a pod.
    _run(environment / "bin/python", "-c", "import ctypes, sys; [*map(ctypes.CDLL, sys.argv[1:])]", *stripped)
    _compile(environment)


def _strip(library: Path) -> bool:
    """Take the debug symbols out of *library*; leaves it as it came, and returns False, where that saves little."""
    smaller = library.with_name(f"{library.name}.stripped")
    _run("strip", "--strip-debug", "-o", smaller, library)
    if library.stat().st_size - smaller.stat().st_size < LEAST_SAVING:
        smaller.unlink()
        return False
    smaller.chmod(library.stat().st_mode)
    smaller.replace(library)
    return True


def _compile(environment: Path) -> None:
    """Byte-code that is never compared with its source again: nobody edits an image, and it has no use for dates."""
    mode = ("--invalidation-mode", "unchecked-hash")
    _run(environment / "bin/python", "-m", "compileall", "-q", "-j", "0", *mode, environment / "lib")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*words: str | Path, cwd: Path | None = None) -> None:
    environ = dict(os.environ)
    if (SECRETS / "pip.conf").exists():
        environ["PIP_CONFIG_FILE"] = str(SECRETS / "pip.conf")
    subprocess.run([str(word) for word in words], check=True, cwd=cwd, env=environ)


def main() -> None:
    """One step: `dependencies`, `members` or `base`; the members' folders follow."""
    match sys.argv[1:]:
        case ["dependencies", *members] if members:
            install_dependencies(
                members, uv_version=os.environ["UV_VERSION"], accelerator=os.environ.get("ACCELERATOR", "cpu")
            )
        case ["members", *members] if members:
            install_members(members)
        case ["base"]:
            prepare_base()
        case _:
            sys.exit("usage: environment.py dependencies|members MEMBER... | base")


if __name__ == "__main__":
    main()
