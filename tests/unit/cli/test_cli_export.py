"""`maag export` of several runs: what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import run
from tiny_artifact import CONFIG

from maag.checkpoint import save_segmentor
from maag.config.codec import override
from maag.models.build import build_segmentor


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
