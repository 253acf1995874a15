"""A prediction that is interrupted by a signal."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from maag_subprocess import wait_until

from maag.cli import main

pytestmark = pytest.mark.integration


def test_sigterm_ends_predict_like_ctrl_c_and_leaves_no_files(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    long = np.random.default_rng(6).integers(0, 9, size=(64, 64, 30, 6)).astype(np.int16)
    for name in "abc":
        nibabel.save(nibabel.Nifti1Image(long, np.diag([2.0, 2.0, 8.0, 1.0])), tmp_path / "in" / f"{name}.nii.gz")
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def send_sigterm() -> None:
        wait_until(lambda: list(place.glob("*/inputs")))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=send_sigterm, daemon=True).start()
    try:
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(tmp_path / "in"), "--model", str(artifact), "--out", str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 1
    assert "Stopped." in capsys.readouterr().err
    # The pool does not wait for a thread that was being started when the signal came; the process does when it ends.
    for thread in threading.enumerate():
        if thread.name.startswith("volume"):
            thread.join(timeout=60)
    assert not list(place.iterdir())
