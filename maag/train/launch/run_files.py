"""A run folder on its way: between the machine of the user, the storage that all nodes reach, and the workers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from ray.train import Checkpoint

from maag import checkpoint
from maag.storage import replacing, storage_errors
from maag.train.folder import RunFolder

OWN_STORAGE = "cluster"
"""Where in the run folder checkpoints go while no other storage is named."""
FolderFiles = dict[str, bytes]
"""The files of a run folder by their path in it."""


def files_of(run: RunFolder) -> FolderFiles:
    """All but what the storage in it has."""
    own = run.path / OWN_STORAGE
    return {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in sorted(run.path.rglob("*"))
        if file.is_file() and own not in file.parents and not file.name.startswith(".")
    }


def write_files(run: RunFolder, files: FolderFiles) -> None:
    """Make an empty run folder that of which these are the files."""
    for name, content in files.items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(content)


def follow(run: RunFolder, stored: Checkpoint) -> None:
    """Make the run folder what the checkpoint holds, file by file, each whole. Raises StorageError."""
    with tempfile.TemporaryDirectory(prefix="maag-run-") as folder:
        with storage_errors(Path(stored.path), "read"):
            stored.to_directory(folder)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                with replacing(run.path / file.relative_to(folder)) as temporary:
                    temporary.write_bytes(file.read_bytes())


def step_of(stored: Checkpoint) -> int:
    """How far training was when this checkpoint of ours was stored."""
    return int(Path(stored.path).name.split("-")[1])


def saved_step(run: RunFolder) -> int:
    """How far the state in a run folder is; -1 when there is none. Raises CheckpointError."""
    if not run.last.exists():
        return -1
    _, state = checkpoint.load_state(run.last, torch.device("cpu"))
    return int(state["progress"]["step"])
