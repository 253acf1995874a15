"""What `maag doctor` reports for a GPU that PyTorch does not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maag.cli.doctor import examine

TOO_OLD = "CUDA: the NVIDIA driver is 470.161.03, but CUDA 13.0, which this PyTorch is built for, needs 580 or newer: "
UNSEEN = "CUDA: PyTorch finds no GPU; check the driver with nvidia-smi"


@pytest.mark.parametrize(
    ("cuda", "smi", "sentence"),
    [
        ("13.0", "echo 470.161.03; echo 470.161.03", TOO_OLD),
        ("11.8", "echo 470.161.03", UNSEEN),
        ("13.0", "echo 580.65.06", UNSEEN),
        ("13.0", "echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9", UNSEEN),
        ("13.0", None, UNSEEN),
        ("99.0", "echo 470.161.03", UNSEEN),
    ],
    ids=["too old", "old enough for old CUDA", "new enough", "no driver", "no nvidia-smi", "a CUDA to come"],
)
def test_doctor_reports_a_driver_too_old_for_cuda(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str, smi: str | None, sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setenv("PATH", str(tmp_path))
    if smi is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    _, missing = examine()
    (found,) = (each for each in missing if each.startswith("CUDA"))
    assert found.startswith(sentence)
