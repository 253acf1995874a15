"""`maag export`: which runs cannot be averaged, and on which slices parity and ranges are measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import run
from tiny_artifact import CONFIG

from maag.checkpoint import save_segmentor
from maag.config.codec import override
from maag.data.catalog import preset
from maag.data.splits import Split
from maag.models.build import build_segmentor
from maag.storage import read_json, write_json


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs, and one on another grid."""
    folders = []
    for seed, spacing in enumerate((1.5, 1.5, 2.0)):
        config = override(CONFIG, {"segmentor.width": 2, "data.spacing_mm": spacing})
        path = tmp_path / f"run{seed}" / "checkpoints" / "best.safetensors"
        path.parent.mkdir(parents=True)
        torch.manual_seed(seed)
        save_segmentor(path, config, build_segmentor(config).state_dict(), {"kind": "best", "split_digest": str(seed)})
        folders.append(path.parent.parent)
    return folders


def test_several_runs_need_a_folder_of_their_own(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", *runs[:2]) == 2
    assert "the average of 2 runs belongs in no run's folder; name one for it with --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chosen", "options", "sentence"),
    [
        ((0, 1), ("--gates",), "--gates: the average of several networks has no gates of its own"),
        ((0, 2), (), "data.spacing_mm=1.5, and"),
        ((0, 1, 0), (), "are the same network"),
    ],
)
def test_runs_that_cannot_be_averaged_are_refused(
    runs: list[Path],
    tmp_path: Path,
    chosen: tuple[int, ...],
    options: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "model"
    assert run("export", *(runs[place] for place in chosen), "--out", out, *options) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.slow
def test_masks_of_another_folder_are_not_needed_for_slices(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = override(preset("acdc", "fast"), {"data.size_px": [32, 32], "data.spacing_mm": 4.0, "segmentor.width": 2})
    weights = tmp_path / "run" / "checkpoints" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    save_segmentor(weights, config, build_segmentor(config).state_dict(), {"kind": "best"})
    split = Split(scheme="mine", scribbled=("patient001",), shapes=("other/patient001",), val=("patient002",))
    write_json(tmp_path / "run" / "split.json", split.to_dict())
    assert run("export", weights, "--data", phantom_dir, "--out", tmp_path / "model") == 0, capsys.readouterr().err
    parity = read_json(tmp_path / "model" / "manifest.json")["parity"]
    assert "validation" in [row["inputs"] for row in parity]
