"""The command `maag tune`, without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from maag.cli.main import commands
from maag.cli.resolving import absolute_source, resolve_config
from maag.cli.tune import options_of_best, tune_command
from maag.cli.tune_plan import Machine, machine_of, make_plans
from maag.cli.tune_resumed import ignored_options
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.errors import ConfigError
from maag.train.launch.room import Node
from tune.place import ray_place

OPTIONS = {
    "trials": 2, "at_once": 1, "max_minutes": None, "algorithm": "random", "address": None, "storage": None,
    "workers": None, "wait_minutes": 0, "seed": 0,
}  # fmt: skip
MACHINE = Machine("cpu", 0, 1)


@pytest.fixture(autouse=True)
def _prepared_before(prepared: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(prepared.directory.parent))


def run(*words: object) -> str:
    done = CliRunner().invoke(commands, ["tune", "--dataset", "acdc", *map(str, words)])
    assert done.exit_code != 0
    return f"{done.output}{done.exception}"


def test_invalid_searches_are_refused_before_ray_starts(
    phantom_dir: Path, tmp_path: Path, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("--data", phantom_dir)
    out = tmp_path / "search"
    assert "no such folder; expected patientNNN" in run("--data", tmp_path / "absent")
    assert "no search to resume here (no search.json); start without" in run(*data, "--resume", "--out", out)
    assert "no search on acdc to resume here; name one with --out" in run(*data, "--resume")
    assert "--resume uses the search's own settings" in run(*data, "--resume", "--out", out, "--preset", "fast")
    assert "data.scribbled_fraction=0.01 of 2 patients leaves none" in run(
        *data, "--out", out, *tiny_options, "--set", "data.scribbled_fraction=0.01"
    )
    assert not out.exists()
    out.mkdir()
    (out / "search.json").write_text(json.dumps({"format_version": 9}))
    assert "already holds a search; add --resume to continue it" in run(*data, "--out", out, *tiny_options)
    assert "format_version 9 is unknown; this maag reads 1" in run(*data, "--out", out, "--resume")
    assert "--resume uses the search's own --trials" in run(*data, "--out", out, "--resume", "--trials", 9)
    assert "--resume uses the search's own --search" in run(*data, "--out", out, "--resume", "--search", "tpe")
    assert "a single trial has no other to learn from" in run(
        *data, "--out", tmp_path / "pbt", *tiny_options, "--search", "pbt", "--trials", 1
    )


@pytest.mark.slow
def test_resumed_search_keeps_its_scribbles_and_data(
    phantom_dir: Path, tmp_path: Path, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve_config("acdc", "fast", None, tiny_options[3::2], phantom_dir)
    out = tmp_path / "search"
    make_plans(out, config, phantom_dir, ("simulated:curve",), MACHINE, None, OPTIONS, resume=False)
    _, trial = make_plans(out, None, phantom_dir, (), MACHINE, None, OPTIONS, resume=True)
    assert trial.scribbles == ("simulated:curve",)
    with pytest.raises(ConfigError, match="the search was started on other data"):
        make_plans(out, None, phantom_dir, ("own",), MACHINE, None, OPTIONS, resume=True)


def test_resumed_search_keeps_its_storage(
    phantom_dir: Path, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, stored = tmp_path / "search", {**OPTIONS, "storage": "shared"}
    make_plans(out, tiny_config, phantom_dir, (), MACHINE, None, stored, resume=False)
    plan, trial = make_plans(out, None, phantom_dir, (), MACHINE, None, OPTIONS, resume=True)
    assert plan.storage == str(tmp_path / "shared")
    assert trial.storage == str(tmp_path / "shared/search/workers")
    make_plans(out, None, phantom_dir, (), MACHINE, None, {**OPTIONS, "storage": "shared/"}, resume=True)
    with pytest.raises(
        ConfigError, match=r"--storage other: .* without it, and the states of its trials are in .*shared; leave it out"
    ):
        make_plans(out, None, phantom_dir, (), MACHINE, None, {**OPTIONS, "storage": "other"}, resume=True)

    monkeypatch.chdir(phantom_dir)
    make_plans(tmp_path / "alone", tiny_config, phantom_dir, (), MACHINE, None, OPTIONS, resume=False)
    with pytest.raises(ConfigError, match=r"without it, and the states of its trials are in .*alone; leave it out"):
        make_plans(tmp_path / "alone", None, phantom_dir, (), MACHINE, None, stored, resume=True)


def test_search_with_a_name_taken_in_the_storage_is_refused(
    phantom_dir: Path, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {**OPTIONS, "storage": str(tmp_path / "shared")}
    make_plans(tmp_path / "one/search", tiny_config, phantom_dir, (), MACHINE, None, stored, resume=False)
    with pytest.raises(ConfigError, match=r"shared already holds a search named search; add --resume"):
        make_plans(tmp_path / "two/search", tiny_config, phantom_dir, (), MACHINE, None, stored, resume=False)
    assert not (tmp_path / "two").exists()
    make_plans(tmp_path / "two/another", tiny_config, phantom_dir, (), MACHINE, None, stored, resume=False)

    (tmp_path / "shared/search/search/search.json").rename(tmp_path / "gone")
    (tmp_path / "shared/search/search/split.json").rename(tmp_path / "gone")
    (tmp_path / "shared/search/tuner.pkl").touch()  # as Ray leaves it there
    with pytest.raises(ConfigError, match=r"shared already holds a search named search; add --resume"):
        make_plans(tmp_path / "four/search", tiny_config, phantom_dir, (), MACHINE, None, stored, resume=False)


def test_resumed_search_keeps_its_search_space(
    phantom_dir: Path, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    begun, _ = make_plans(out, tiny_config, phantom_dir, (), MACHINE, None, OPTIONS, held={"optim.lr"}, resume=False)
    resumed, _ = make_plans(out, None, phantom_dir, (), MACHINE, None, OPTIONS, resume=True)
    assert "optim.lr" not in begun.space
    assert list(resumed.space) == list(begun.space)


def test_options_to_retrain_the_best_include_its_scribbles_and_split(tmp_path: Path) -> None:
    words = options_of_best(tmp_path, "acdc", Path("data"), ("/scribbles/a", "simulated:curve"))
    assert " ".join(map(str, words)) == (
        "--dataset acdc --data data --scribbles /scribbles/a --scribbles simulated:curve "
        f"--split-file {tmp_path}/split.json --config {tmp_path}/best.json"
    )


def test_cluster_with_nodes_yet_to_start_is_not_assumed_to_be_cpu_only() -> None:
    head = [Node(0, 0)]
    with pytest.raises(
        ConfigError, match="whether workers take GPUs is unknown until nodes are there; add --device cuda"
    ):
        machine_of(head, "auto", workers=1, wait_minutes=5)
    assert machine_of(head, "cuda", workers=1, wait_minutes=5) == Machine("cuda", 0, 0)
    assert machine_of([*head, Node(8, 2)], "auto", workers=1, wait_minutes=5) == Machine("cuda", 2, 8)
    assert machine_of([*head, Node(8, 2)], "cpu", workers=1, wait_minutes=5) == Machine("cpu", 0, 8)
    assert machine_of([*head, Node(8, 0)], "auto", workers=1, wait_minutes=5) == Machine("cpu", 0, 8)


def test_trials_ignore_patience(
    phantom_dir: Path, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = codec.override(tiny_config, {"train.patience": 2})
    _, trial = make_plans(tmp_path / "search", config, phantom_dir, (), MACHINE, None, OPTIONS, resume=False)
    assert trial.base["train"]["patience"] == 0


def test_paths_sent_to_nodes_keep_symlinks(
    phantom_dir: Path, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk7/cache").mkdir(parents=True)
    (tmp_path / "disk7/scribbles").mkdir()
    (tmp_path / "disk7/data").symlink_to(phantom_dir)
    (tmp_path / "mnt").symlink_to(tmp_path / "disk7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAAG_CACHE", "mnt/cache")
    _, trial = make_plans(Path("mnt/search"), tiny_config, Path("mnt/data"), (), MACHINE, None, OPTIONS, resume=False)
    assert (trial.data_dir, trial.cache_root) == (f"{tmp_path}/mnt/data", f"{tmp_path}/mnt/cache")
    assert trial.trials_dir == f"{tmp_path}/mnt/search/trials"
    assert ray_place(None, Path("mnt/search")) == (f"{tmp_path}/mnt/search", "ray")
    assert absolute_source("mnt/scribbles") == f"{tmp_path}/mnt/scribbles"


def test_resumed_search_reports_ineffective_options(
    phantom_dir: Path, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    make_plans(out, tiny_config, phantom_dir, (), MACHINE, None, {**OPTIONS, "at_once": 2}, resume=False)

    def reported(
        *words: str, asked: Config = tiny_config, given: tuple[str, ...] = (), whole: bool = False
    ) -> list[str]:
        with tune_command.make_context("tune", ["--dataset", "acdc", *words]):
            return ignored_options(out, asked, given, None, whole=whole)

    assert reported("--trials", "2", "--concurrency", "8", "--search", "random", "--time", "5") == []
    assert reported("--trials", "64") == ["--trials 64 has no effect: the search keeps its own 2."]
    assert reported("--search", "tpe") == ["--search tpe has no effect: the search keeps its own random."]
    other = codec.override(tiny_config, {"optim.lr": 5e-4, "optim.epochs": 3, "train.patience": 4})
    assert reported(asked=other) == []
    lr = f"optim.lr=0.0005 has no effect: the search keeps its own optim.lr={tiny_config.optim.lr}."
    assert reported(asked=other, given=("optim.lr",)) == [lr]
    assert reported(asked=other, whole=True) == [lr]
    both = reported(asked=other, given=("optim.lr", "optim.epochs"))
    assert "optim.epochs=3 has no effect" in both[0]
    split = json.loads((out / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps({**split, "val": []}))
    with tune_command.make_context("tune", ["--dataset", "acdc"]):
        assert ignored_options(out, tiny_config, (), out / "split.json", whole=True) == []
        (sentence,) = ignored_options(out, tiny_config, (), tmp_path / "split.json", whole=True)
    assert sentence.startswith(f"--split-file {tmp_path}/split.json has no effect")
