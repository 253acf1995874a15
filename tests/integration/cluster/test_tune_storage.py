"""A search whose trials train on several workers each, and whose nodes share nothing but an S3 bucket."""

from __future__ import annotations

import csv
import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from command_line import run as run_here
from maag_subprocess import Command, wait_until
from s3_server import BUCKET, client_of, s3_server

from maag import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
TRIALS, EPOCHS = 2, 2


@pytest.mark.long
def test_search_on_workers_resumes_from_the_bucket(
    phantom_dir: Path,
    tmp_path: Path,
    tiny_options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    words = ["tune", "--dataset", "acdc", "--data", phantom_dir, "--storage", f"s3://{BUCKET}/searches"]
    settings = ["--trials", TRIALS, "--epochs", EPOCHS, "--concurrency", 1, "--workers", 2, *tiny_options]
    with s3_server() as (server, environment):
        out = tmp_path / "one" / "search"
        command = Command(*words, "--out", out, *settings, environment=environment)
        client = client_of(environment)
        wait_until(
            lambda: "done" in statuses(out / "trials.csv") and "TERMINATED" in saved_state(client),
            240,
            lambda: command.stderr,
        )
        command.send_signal(signal.SIGKILL)
        command.wait_for_exit()
        first = [path for path in server.uploads if "/workers/" in path and path.endswith("last.pt")]
        assert first

        # On another machine, which has only the name of the search.
        again = tmp_path / "other" / "search"
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run_here(*words, "--out", again, "--resume-if-there", "--json") == 0
        assert len(statuses(again / "trials.csv")) == TRIALS
        assert set(statuses(again / "trials.csv")) <= {"done", "stopped"}
        summary = json.loads(capsys.readouterr().out)
        assert summary["trials"] == TRIALS
        finished = next(iter(csv.DictReader(io.StringIO((out / "trials.csv").read_text()))))["trial"]
        later = server.uploads[server.uploads.index(first[-1]) + 1 :]
        assert not [path for path in later if f"/workers/{finished}/" in path and path.endswith("last.pt")]

        best = checkpoint.load_segmentor(again)
        assert best.config.optim.epochs == EPOCHS
        assert "shortfalls" in best.info
        keys = {
            item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix="searches/search/search/")["Contents"]
        }
        assert {key.rsplit("/", 1)[1] for key in keys} == {
            "trials.csv", "best.json", "best.safetensors", "search.png", "search.json", "split.json"
        }  # fmt: skip


def saved_state(client: Any) -> str:
    """Ray's newest saved state of the search; empty if there is none."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="searches/search/experiment_state").get("Contents", [])
    if not listed:
        return ""
    newest = max(item["Key"] for item in listed)
    return str(client.get_object(Bucket=BUCKET, Key=newest)["Body"].read().decode())


def statuses(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [row["status"] for row in csv.DictReader(io.StringIO(path.read_text()))]
