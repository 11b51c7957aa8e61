"""The files that images are built from say the same, as far as reading them shows."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import onnx_upscale

ROOT = Path(__file__).parents[2]
FILES = ("Dockerfile", "Dockerfile.cuda")
_BLOCK = re.compile(r'^(\w+)(?: "(\w+)")? \{\n(.*?)^\}\n', re.DOTALL | re.MULTILINE)


def instructions(name: str) -> list[tuple[str, str]]:
    """What a Dockerfile says, one pair per instruction."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in found]


def last_stage(name: str) -> list[tuple[str, str]]:
    """What a Dockerfile says of the image itself."""
    found = instructions(name)
    start = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return found[start + 1 :]


def labels(name: str) -> dict[str, str]:
    """The labels of an image, by the last part of their names."""
    (text,) = [rest for word, rest in last_stage(name) if word == "LABEL"]
    pairs = re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', text)
    assert len(pairs) == text.count("=")
    return dict(pairs)


def commands(name: str) -> str:
    """What runs while an image is built."""
    return "\n".join(rest for word, rest in instructions(name) if word == "RUN")


def targets() -> dict[str, str]:
    """The targets of the bake file, as they stand there."""
    text = (ROOT / "docker-bake.hcl").read_text(encoding="utf-8")
    return {name: body for kind, name, body in _BLOCK.findall(text) if kind == "target"}


@pytest.mark.parametrize("name", FILES)
def test_known_instructions_only(name: str) -> None:
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD", "LABEL"}
    assert {word for word, _ in instructions(name)} <= known


def test_images_differ_only_in_what_they_stand_on() -> None:
    assert last_stage(FILES[0]) == last_stage(FILES[1])
    assert ("USER", "10001:10001") in last_stage(FILES[0])


def test_labels_say_where_an_image_comes_from() -> None:
    found = labels("Dockerfile")
    assert found["licenses"] == "Apache-2.0"
    for name in ("version", "revision", "source"):
        assert found[name] == f"${name.upper()}"
        assert ("ARG", f"{name.upper()}=") in last_stage("Dockerfile")


def test_no_file_repeats_the_version() -> None:
    for name in (*FILES, "docker-bake.hcl", "Makefile"):
        assert onnx_upscale.__version__ not in (ROOT / name).read_text(encoding="utf-8")
        if name in FILES:
            assert '--version | grep -Fx "onnx-upscale, version $VERSION"' in commands(name)


def test_the_image_for_gpus_has_one_onnxruntime() -> None:
    runs = commands("Dockerfile.cuda")
    assert runs.index("uninstall -y onnxruntime") < runs.index('"onnxruntime-gpu')


def test_the_bake_file_builds_both_for_both() -> None:
    found = targets()
    assert set(found) == {"_both", "cpu", "cuda"}
    assert 'platforms = ["linux/amd64", "linux/arm64"]' in found["_both"]
    given = set(re.findall(r"^    (\w+) += \1$", found["_both"], re.MULTILINE))
    for name, file in zip(("cpu", "cuda"), FILES, strict=True):
        assert f'dockerfile = "{file}"\n' in found[name]
        taken = {rest.rstrip("=") for word, rest in last_stage(file) if word == "ARG"}
        assert taken == given


def test_make_takes_version_and_commit_from_where_they_stand(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" $VERSION ${#REVISION} $IMAGE\n')
    docker.chmod(0o755)
    git = tmp_path / "git"
    git.write_text('#!/bin/sh\n[ "$*" = "rev-parse HEAD" ] && echo 12345\n')
    git.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "images", "BAKE=cpu --push", "IMAGE=here/it"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.stdout == f"buildx bake cpu --push {onnx_upscale.__version__} 5 here/it\n"
