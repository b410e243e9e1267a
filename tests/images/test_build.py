"""`make images` without an engine: what it would say to one, and how it reads what one wrote."""

import gzip
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from images.build import (
    BuildError,
    Engine,
    Plan,
    Weight,
    build_images,
    find_engine,
    layer_sizes,
    options,
    pip_settings,
    table,
    too_heavy,
    version,
)


def _archive(path: Path, layers: dict[str, bytes]) -> Path:
    """An archive as `docker save` writes it; *layers*: digest -> content of its file."""
    files = {f"layer-{number}.tar": content for number, content in enumerate(layers.values())}
    files["config.json"] = json.dumps({"rootfs": {"diff_ids": list(layers)}}).encode()
    manifest = [{"Config": "config.json", "Layers": [f"layer-{number}.tar" for number in range(len(layers))]}]
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_sizes_are_those_of_the_uncompressed_layers(tmp_path: Path) -> None:
    """Engines write layers plain or compressed; the limits mean the same with each."""
    layers = {"sha256:a": b"x" * 5000, "sha256:b": gzip.compress(b"y" * 70_000)}
    assert layer_sizes(_archive(tmp_path / "image.tar", layers)) == [("sha256:a", 5000), ("sha256:b", 70_000)]


def test_names_and_tags_are_those_that_the_operator_and_the_chart_expect() -> None:
    assert Plan().name("stt") == f"everwarm/stt:{version()}"
    assert Plan(prefix="registry.test/team", tag="7").name("gateway") == "registry.test/team/gateway:7"
    assert Plan(accelerator="cuda").name("stt") == f"everwarm/stt:{version()}-cuda"


def test_options_name_base_version_and_platform_and_the_accelerator_for_stt_alone() -> None:
    plan = Plan(python_image="mirror.test/python:3.13", accelerator="cuda", platform="linux/amd64")
    stt, operator = options(plan, "stt"), options(plan, "operator")
    for words in (stt, operator):
        assert words[:2] == ["--build-arg", "PYTHON_IMAGE=mirror.test/python:3.13"]
        assert f"VERSION={version()}" in words
        assert words[-2:] == ["--platform", "linux/amd64"]
    assert "ACCELERATOR=cuda" in stt
    assert not any("ACCELERATOR" in word for word in operator)


def test_cuda_variant_is_refused_for_machines_whose_wheels_have_no_cuda() -> None:
    with pytest.raises(BuildError, match="x86-64"):
        build_images(Engine("none", ()), Plan(images=("stt",), accelerator="cuda", platform="linux/arm64"))


def test_table_shows_base_on_top_and_total_and_what_is_too_heavy_is_named() -> None:
    plan = Plan(images=("stt", "gateway"))
    weights = {
        plan.name("stt"): Weight(base=130_000_000, on_top=400_000_000),
        plan.name("gateway"): Weight(base=130_000_000, on_top=191_000_000),
    }
    head, stt, gateway = table(weights).splitlines()
    assert head.split() == ["image", "base", "MB", "on", "top", "MB", "total", "MB"]
    assert stt.split() == [plan.name("stt"), "130", "400", "530"]
    assert gateway.split() == [plan.name("gateway"), "130", "191", "321"]
    assert too_heavy(plan, weights) == [f"{plan.name('gateway')} has more than 150 MB on top of its base"]


def test_docker_without_an_engine_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program alone says nothing: it is often installed where no engine can run."""
    _program(tmp_path / "bin", "docker", "exit 1")
    _program(tmp_path / "bin", "podman", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert find_engine().name == "podman"
    with pytest.raises(BuildError, match="docker is here and works"):
        find_engine("docker")


def test_engine_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(BuildError, match="'kaniko' is not known"):
        find_engine("kaniko")


def test_build_that_fails_says_which_image_was_not_built(tmp_path: Path) -> None:
    _program(tmp_path / "bin", "podman", "exit 1")
    engine = Engine("podman", (str(tmp_path / "bin" / "podman"),))
    with pytest.raises(BuildError, match="everwarm/stt:1 was not built"):
        engine.build("everwarm/stt:1", tmp_path / "Dockerfile", tmp_path)


def test_index_and_certificates_are_those_of_pip_on_this_machine(tmp_path: Path) -> None:
    """A build behind a mirror needs no more than pip does there."""
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://mirror.test/simple\ncert = /a.pem\n", encoding="utf-8")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ = {**plain, "PIP_CONFIG_FILE": str(config), "PIP_CERT": "/b.pem"}
    settings = pip_settings(environ, python=sys.executable)
    assert settings == {"index-url": "https://mirror.test/simple", "cert": "/b.pem"}
