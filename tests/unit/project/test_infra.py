"""Manifests and images, checked by every tool that runs without a cloud."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from infra_files import DOCKERFILES, INFRA, JOBS, KUBERNETES, RAY_JOBS, ROOT
from yamllint import linter
from yamllint.config import YamlLintConfig

from maag import __version__
from maag.cli.main import commands

LINT = YamlLintConfig("{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: disable}}")


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("path", [*KUBERNETES, INFRA / "ray" / "aws.yaml"], ids=lambda path: path.name)
def test_yaml_passes_yamllint(path: Path) -> None:
    assert [str(problem) for problem in linter.run(path.read_text(), LINT)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the dev extra has hadolint for Linux alone")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "install the dev extra"
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_existing_files(path: Path) -> None:
    copied = [
        words for line in path.read_text().splitlines() if line.startswith("COPY") and (words := line.split()[1:-1])
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # maag cannot be built without these.
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= {
        name for words in copied for name in words
    }
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for source in (name for words in copied for name in words):
        assert (ROOT / source).exists(), source
        assert f"!{Path(source).parts[0]}" in kept


def test_gpu_image_installs_the_compiler_for_triton() -> None:
    installs = re.search(r"apt-get install (.*?)&&", (INFRA / "docker" / "train.Dockerfile").read_text(), re.DOTALL)
    assert installs is not None
    assert {"gcc", "libc6-dev"} <= set(installs.group(1).split())


def test_infra_files_contain_no_credentials() -> None:
    for path in (path for path in INFRA.rglob("*") if path.is_file()):
        assert not re.search(r"AKIA|aws_secret|SECRET_ACCESS_KEY\s*[:=]|BEGIN .*PRIVATE", path.read_text()), path


def test_image_tags_and_versions_agree() -> None:
    texts = {path: path.read_text() for path in INFRA.rglob("*") if path.is_file() and "__pycache__" not in str(path)}
    tags = {tag for text in texts.values() for tag in re.findall(r"maag-(?:train|predict):([\w.]+)", text)}
    assert tags == {__version__}
    assert {job["spec"]["rayClusterSpec"]["rayVersion"] for job in RAY_JOBS} == {pinned()["ray"]}
    python = {re.search(r"FROM python:(\S+)-slim", path.read_text()).group(1) for path in DOCKERFILES}  # type: ignore[union-attr]
    assert python == {"3.11"}
    for name in ("ray", "click", "nibabel"):
        assert version(name) == pinned()[name]


def test_oldest_allowed_ray_announces_node_preemption() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (*project["dependencies"], *project["optional-dependencies"]["cluster"])
    floors = {line.split(">=")[1] for line in wanted if line.startswith("ray[")}
    # The first with `ray.train.get_preemption_info`, by which workers learn that their node is about to leave.
    assert floors == {"2.58"}


def test_readme_runs_only_images_that_it_builds() -> None:
    text = (INFRA / "README.md").read_text()
    assert re.findall(r"\bVERSION=(\S+)", text) == [__version__]
    built = set(re.findall(r"docker build .* -t (\S+)", text))
    run = {line.split()[0] for line in re.findall(r"docker run (?:.*\\\n)*(.*)", text)}
    assert run
    assert run <= built


def words_of_jobs() -> Iterator[list[str]]:
    for job in RAY_JOBS:
        yield shlex.split(job["spec"]["entrypoint"])
    yield JOBS["predict"]["spec"]["template"]["spec"]["containers"][0]["command"]
    for block in re.findall(r"^maag (?:\\\n|.)*$", (INFRA / "README.md").read_text(), flags=re.MULTILINE):
        yield shlex.split(block.replace("\\\n", " "))


@pytest.mark.parametrize("words", list(words_of_jobs()), ids=lambda words: " ".join(words[:3]))
def test_commands_in_manifests_and_readme_exist_with_their_options(words: list[str]) -> None:
    assert words[0] == "maag"
    command = commands.commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.slow
def test_predict_image_installs_everything_that_predict_imports() -> None:
    program = (
        "import sys, importlib.metadata as m\n"
        "import maag.cli.main, maag.cli.predict\n"
        "import deploy.predicting.batch, deploy.runners.opening, deploy.artifact.manifest, deploy.inputs.dicom_seg\n"
        "known = m.packages_distributions()\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted({d.lower() for name in names for d in known.get(name, [])}))\n"
    )
    needed = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    listed = {line for line in (INFRA / "docker" / "predict.txt").read_text().splitlines() if not line.startswith("#")}
    asked = {re.split(r"[><=\[;]", line)[0] for line in _dependencies()}
    assert needed & {name.lower() for name in asked} <= listed | {"torch", "onnxruntime-gpu"}
    assert not needed & {"ray", "monai", "optuna", "scikit-image", "tensorboard"}


def _dependencies() -> list[str]:
    dependencies: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dependencies
