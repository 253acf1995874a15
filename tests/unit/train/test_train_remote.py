"""What a run finds in its storage, and that a failed read is not taken for an empty storage."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from maag.cli.main import commands
from maag.cli.train_cluster import recipe_of
from maag.data.catalog import preset
from maag.data.splits import Split
from maag.errors import StorageError
from maag.train.launch.remote import absolute_storage, download, newest_checkpoint, upload


def test_small_files_are_uploaded_and_downloaded(tmp_path: Path) -> None:
    (tmp_path / "here" / "checkpoints").mkdir(parents=True)
    (tmp_path / "here" / "a.json").write_text("{}")
    (tmp_path / "here" / "checkpoints" / "b").write_bytes(b"b")
    names = ("a.json", "checkpoints/b", "missing")
    upload(tmp_path / "here", names, str(tmp_path / "storage" / "run"))
    download(str(tmp_path / "storage" / "run"), names, tmp_path / "there")
    assert (tmp_path / "there" / "a.json").read_text() == "{}"
    assert (tmp_path / "there" / "checkpoints" / "b").read_bytes() == b"b"
    assert not (tmp_path / "there" / "missing").exists()


def test_a_storage_without_checkpoints_has_no_newest_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(str(tmp_path / "runs" / "run")) is None
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    assert newest_checkpoint(str(tmp_path / "runs" / "begun")) is None


class DenyingHandler(BaseHTTPRequestHandler):
    """An S3 server that rejects all credentials, as it does expired ones."""

    def do_HEAD(self) -> None:
        self.send_error(403)

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def denying_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with HTTPServer(("127.0.0.1", 0), DenyingHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
            monkeypatch.setenv(f"AWS_{name}", value)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("denying_s3")
@pytest.mark.parametrize("words", [["--resume"], ["--resume-if-there"], []])
def test_a_storage_that_denies_access_is_not_taken_for_empty(words: list[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    more = ["--data", str(data), "--out", str(tmp_path / "run"), "--workers", "1", "--storage", "s3://bucket/runs"]
    result = CliRunner().invoke(commands, ["train", "--dataset", "acdc", *more, *words])
    assert isinstance(result.exception, StorageError)
    assert re.match(
        r"cannot read s3://bucket/runs/run: .* check the address, the network and the credentials$",
        str(result.exception),
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_storage_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^cannot read ftp://bucket/run: .* check the address"):
        newest_checkpoint("ftp://bucket/run")


def test_relative_storage_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_storage("shared") == str(tmp_path / "shared")
    assert absolute_storage("s3://bucket/runs/") == "s3://bucket/runs"


def test_symbolic_links_in_paths_are_not_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk" / "drawn").mkdir(parents=True)
    (tmp_path / "mount").symlink_to("disk")
    monkeypatch.setenv("MAAG_CACHE", "mount/cache")
    recipe = recipe_of(
        preset("acdc", "fast"), Split(scheme="x", scribbled=("a",)), Path("mount"), ["mount/drawn"],
        ("acdc", Path("mount")), None, [Path("mount/run")],
    )  # fmt: skip
    mount = f"{tmp_path}/mount"
    assert (recipe.data_dir, recipe.cache_root, recipe.shapes) == (mount, f"{mount}/cache", ("acdc", mount))
    assert (recipe.scribbles, recipe.teachers) == ((f"{mount}/drawn",), (f"{mount}/run",))
    assert absolute_storage("mount") == mount
