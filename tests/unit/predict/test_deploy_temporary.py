"""Temporary files are removed when their process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from maag_subprocess import wait_until

PROCESS = """
import sys, tempfile
from deploy.predicting.temporary import keep_temporary_files_together
keep_temporary_files_together()
with tempfile.TemporaryDirectory() as folder:
    open(f"{folder}/scan.nii.gz", "w").close()
    print("made", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGKILL])
def test_temporary_files_are_removed_when_their_process_ends(
    end: signal.Signals | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROCESS], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        time.sleep(0.2)  # A removal that does not wait for the end would be under way by now.
        assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["scan.nii.gz"]
        if end is not None:
            process.send_signal(end)
    wait_until(lambda: not any(tmp_path.iterdir()), 10)
