"""Damaged checkpoints are refused, and a failed write keeps the previous checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from maag.checkpoint import BEST, FINAL, LAST, find_weights, load_segmentor, load_state, save_segmentor, save_state
from maag.config import codec
from maag.config.schema import Config
from maag.errors import CheckpointError, MissingDataError, StorageError
from maag.train.state import TrainState

CPU = torch.device("cpu")
INFO = {"kind": "best", "step": 7, "epoch": 2, "dice": 0.5}


@pytest.fixture(scope="module")
def written(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    state = TrainState(tiny_config, CPU)
    save_state(folder / LAST, tiny_config, state.state_dict())
    save_segmentor(folder / BEST, tiny_config, state.segmentor.state_dict(), INFO)
    return folder


@pytest.fixture
def saved(written: Path, tmp_path: Path) -> Path:
    """A folder with a training state and a segmentor in it, for a test to damage."""
    return Path(shutil.copytree(written, tmp_path, dirs_exist_ok=True))


def load(path: Path) -> object:
    return load_state(path, CPU) if path.name == LAST else load_segmentor(path)


def error_message_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_load_segmentor_restores_the_weights_and_the_configuration(saved: Path, tiny_config: Config) -> None:
    trained = load_segmentor(saved / BEST)
    assert trained.config == tiny_config
    assert trained.info == INFO
    assert trained.digest == hashlib.sha256((saved / BEST).read_bytes()).hexdigest()
    assert not trained.segmentor.training
    expected = TrainState(tiny_config, CPU).segmentor.state_dict()
    assert trained.segmentor.state_dict().keys() == expected.keys()
    for name, tensor in trained.segmentor.state_dict().items():
        assert torch.equal(tensor, expected[name])
    with safe_open(saved / BEST, framework="pt") as file:
        header = file.metadata()
    assert codec.from_dict(json.loads(header["config"])) == tiny_config


@pytest.mark.parametrize("name", [LAST, BEST])
@pytest.mark.parametrize("part", [0, 1, 7, 200, 5000, 0.5, -1])
def test_a_truncated_file_is_refused(saved: Path, name: str, part: float) -> None:
    content = (saved / name).read_bytes()
    kept = part if isinstance(part, int) else int(part * len(content))
    (saved / name).write_bytes(content[:kept])
    assert "damaged" in error_message_of(saved / name)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="only Linux has this unreadable file")
@pytest.mark.parametrize("name", [LAST, BEST])
def test_an_unreadable_file_raises_storage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match="cannot read"):
        load_segmentor(tmp_path / name) if name == BEST else load_state(tmp_path / name, CPU)


@pytest.mark.parametrize("name", [LAST, BEST])
def test_a_file_without_read_permission_raises_storage_error(saved: Path, name: str) -> None:
    (saved / name).chmod(0)
    if os.access(saved / name, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(StorageError, match="permission denied; ask for the right to read it"):
        load_segmentor(saved / name) if name == BEST else load_state(saved / name, CPU)


@pytest.mark.parametrize("content", [torch.zeros(3), [1], {"other": 1}, {"format_version": 1}, None])
def test_a_torch_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / LAST)
    assert "damaged" in error_message_of(tmp_path / LAST)


def test_load_segmentor_refuses_a_training_state_and_a_missing_path(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"give a run folder or its checkpoints/best\.safetensors"):
        load_segmentor(saved / LAST)
    with pytest.raises(MissingDataError, match="nope: there is no such path; give a run folder"):
        load_segmentor(tmp_path / "nope")


def test_an_unknown_format_version_is_refused(saved: Path) -> None:
    content = torch.load(saved / LAST, weights_only=True)
    torch.save({**content, "format_version": 2}, saved / LAST)
    assert "format_version 2 is unknown; this maag reads 1" in error_message_of(saved / LAST)
    with safe_open(saved / BEST, framework="pt") as file:
        header, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, saved / BEST, {**header, "format_version": "2"})
    assert "format_version 2 is unknown; this maag reads 1" in error_message_of(saved / BEST)


def test_weights_that_do_not_fit_the_configuration_are_refused(saved: Path, tiny_config: Config) -> None:
    wider = codec.override(tiny_config, {"segmentor.width": 8})
    save_segmentor(saved / BEST, wider, TrainState(tiny_config, CPU).segmentor.state_dict(), INFO)
    assert error_message_of(saved / BEST).endswith("the weights do not fit the configuration beside them")


def test_find_weights_prefers_the_best_segmentor_over_the_final_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / FINAL).touch()
    assert find_weights(tmp_path) == folder / FINAL
    (folder / BEST).touch()
    assert find_weights(tmp_path) == folder / BEST
    assert find_weights(folder / FINAL) == folder / FINAL


@pytest.mark.slow
def test_a_full_disk_keeps_the_previous_checkpoint(saved: Path, tiny_config: Config) -> None:
    program = (
        "import json, resource, signal, sys\nfrom pathlib import Path\nimport torch\n"
        "from maag.checkpoint import BEST, LAST, save_segmentor, save_state\n"
        "from maag.config import codec\nfrom maag.errors import StorageError\n"
        "from maag.train.state import TrainState\n"
        "config = codec.from_dict(json.loads(sys.argv[2]))\n"
        "state = TrainState(config, torch.device('cpu'))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "folder = Path(sys.argv[1])\n"
        "for save in (\n"
        "    lambda: save_state(folder / LAST, config, state.state_dict()),\n"
        "    lambda: save_segmentor(folder / BEST, config, state.segmentor.state_dict(), {}),\n"
        "):\n"
        "    try:\n        save()\n        sys.exit('it was written')\n"
        "    except StorageError as error:\n        print(error)\n"
    )
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert all(len(content) > 20_000 for content in before.values())
    arguments = [str(saved), json.dumps(codec.to_dict(tiny_config))]
    completed = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines() == [
        f"cannot write {saved / name}: the file would be larger than is allowed here; choose another place"
        for name in (LAST, BEST)
    ]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    load(saved / LAST)
    load(saved / BEST)


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_code_in_a_training_state_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    content = torch.load(saved / LAST, weights_only=True)
    torch.save({**content, "state": Payload(tmp_path / "ran")}, saved / LAST)
    error_message_of(saved / LAST)
    assert not (tmp_path / "ran").exists()


def test_a_segmentor_with_a_missing_weight_is_refused(saved: Path, tiny_config: Config) -> None:
    weights = TrainState(tiny_config, CPU).segmentor.state_dict()
    weights.pop(next(iter(weights)))
    save_segmentor(saved / BEST, tiny_config, weights, INFO)
    error_message_of(saved / BEST)


def test_weights_without_metadata_are_refused(saved: Path, tiny_config: Config) -> None:
    weights = TrainState(tiny_config, CPU).segmentor.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, saved / BEST)
    error_message_of(saved / BEST)
