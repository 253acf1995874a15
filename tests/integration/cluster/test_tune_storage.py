"""A search whose trials train on several workers each, and whose nodes share nothing but an S3 bucket."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from pathlib import Path

import pytest
from journeys import Command
from s3 import BUCKET, client_of, s3_server

from maag import checkpoint

pytestmark = pytest.mark.integration
TRIALS, EPOCHS = 3, 3


def test_search_on_workers_resumes_from_the_bucket(
    phantom_dir: Path, tmp_path: Path, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    words = ["tune", "--dataset", "acdc", "--data", phantom_dir, "--storage", f"s3://{BUCKET}/searches"]
    settings = ["--trials", TRIALS, "--epochs", EPOCHS, "--concurrency", 1, "--workers", 2, *tiny_options]
    with s3_server() as (server, environment):
        out = tmp_path / "one" / "search"
        command = Command(*words, "--out", out, *settings, environment=environment)
        until = time.monotonic() + 240
        while "done" not in statuses(out / "trials.csv"):
            assert time.monotonic() < until, command.stderr
            time.sleep(0.2)
        time.sleep(1)  # Ray saves its own state just after
        command.send_signal(signal.SIGKILL)
        command.wait_for_exit()
        first = [path for path in server.uploads if "/workers/" in path and path.endswith("last.pt")]
        assert first

        # On another machine, which has only the name of the search.
        again = tmp_path / "other" / "search"
        resumed = Command(*words, "--out", again, "--resume-if-there", "--json", environment=environment)
        code, output = resumed.wait_for_exit()
        assert code == 0, resumed.stderr
        assert len(statuses(again / "trials.csv")) == TRIALS
        assert set(statuses(again / "trials.csv")) <= {"done", "stopped"}
        summary = json.loads(output)
        assert summary["trials"] == TRIALS
        finished = next(iter(csv.DictReader(io.StringIO((out / "trials.csv").read_text()))))["trial"]
        later = server.uploads[server.uploads.index(first[-1]) + 1 :]
        assert not [path for path in later if f"/workers/{finished}/" in path and path.endswith("last.pt")]

        best = checkpoint.load_segmentor(again)
        assert best.config.optim.epochs == EPOCHS
        assert "shortfalls" in best.info
        client = client_of(environment)
        keys = {
            item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix="searches/search/search/")["Contents"]
        }
        assert {key.rsplit("/", 1)[1] for key in keys} == {
            "trials.csv", "best.json", "best.safetensors", "search.png", "search.json", "split.json"
        }  # fmt: skip


def statuses(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [row["status"] for row in csv.DictReader(io.StringIO(path.read_text()))]
