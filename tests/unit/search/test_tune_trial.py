"""A trial, run without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.errors import DataError, MissingDataError
from maag.inference import TorchRunner
from maag.models.build import build_segmentor
from maag.storage import read_json
from maag.train.folder import RunFolder
from tune.schedule import SCHEDULE, read_schedule
from tune.trial import TrialPlan, note_shortfalls_of, prepare_the_same, run_trial

Begin = Callable[..., RunFolder]


def test_trial_on_a_node_with_other_data_is_refused(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    plan = TrialPlan(
        base=codec.to_dict(tiny_config), data_dir=str(phantom_dir), scribbles=(), data_digest="other",
        cache_root=str(tmp_path / "cache"), split=split.to_dict(), trials_dir=str(tmp_path / "trials"), device="cpu",
        threads=1, exchange=False,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"node .*: has other data \(digest .*\) than training began with \(other\)"):
        prepare_the_same(tiny_config, plan)


@pytest.fixture
def best(tiny_config: Config, tmp_path: Path) -> Path:
    """Weights of a trial that was stopped early."""
    torch.manual_seed(0)
    weights = tmp_path / "best.safetensors"
    checkpoint.save_segmentor(weights, tiny_config, build_segmentor(tiny_config).state_dict(), {"epoch": 3})
    return weights


@pytest.fixture
def measuring(phantom_dir: Path, tiny_config: Config, prepared: PreparedData, tmp_path: Path) -> TrialPlan:
    """A search's plan in which all patients validate."""
    return TrialPlan(
        base=codec.to_dict(tiny_config), data_dir=str(phantom_dir), scribbles=(), data_digest=prepared.digest,
        cache_root=str(prepared.directory.parent), split=Split(scheme="all", val=prepared.patient_ids).to_dict(),
        trials_dir=str(tmp_path / "trials"), device="cpu", threads=1, exchange=False,
    )  # fmt: skip


def test_best_model_of_a_stopped_trial_gets_its_shortfalls(best: Path, measuring: TrialPlan) -> None:
    messages: list[str] = []
    note_shortfalls_of(best, measuring, messages.append)
    noted = checkpoint.load_segmentor(best).info
    assert noted["epoch"] == 3
    assert noted["shortfalls"]
    (sentence,) = messages
    assert "expected Dice compares with the real one" in sentence
    assert sentence.endswith("Ctrl-C skips this")

    note_shortfalls_of(best, replace(measuring, data_dir="nowhere"), messages.append)
    assert checkpoint.load_segmentor(best).info == noted
    assert len(messages) == 1  # nothing was left to measure


def test_missing_or_changed_data_leave_the_best_model_without_shortfalls(
    best: Path, measuring: TrialPlan, tmp_path: Path
) -> None:
    messages: list[str] = []
    gone = replace(measuring, data_dir=str(tmp_path / "nowhere"))
    for changed, why in ((gone, "nowhere"), (replace(measuring, data_digest="other"), "has other data")):
        note_shortfalls_of(best, changed, messages.append)
        assert checkpoint.load_segmentor(best).info == {"epoch": 3}
        assert messages[-1].startswith(f"{best} has no correction of its expected Dice")
        assert why in messages[-1]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyboardInterrupt(), "because Ctrl-C interrupted the measurement; --resume repeats it"),
        (torch.OutOfMemoryError("out of memory\nTried to allocate"), "could not be measured: out of memory; --resume"),
        (MemoryError(), "could not be measured: MemoryError; --resume repeats it"),
    ],
)
def test_interrupted_or_failed_measurement_is_reported_and_leaves_the_model(
    best: Path, measuring: TrialPlan, monkeypatch: pytest.MonkeyPatch, error: BaseException, why: str
) -> None:
    def fail(runner: TorchRunner, images: object) -> None:
        raise error

    monkeypatch.setattr(TorchRunner, "__call__", fail)
    before, messages = best.read_bytes(), list[str]()
    note_shortfalls_of(best, measuring, messages.append)
    assert best.read_bytes() == before
    assert len(messages) == 2
    assert messages[1].startswith(f"{best} has no correction of its expected Dice, because ")
    assert why in messages[1]


def test_damaged_best_model_is_reported_without_ending_the_search(best: Path, measuring: TrialPlan) -> None:
    best.write_bytes(best.read_bytes()[:100])
    messages: list[str] = []
    note_shortfalls_of(best, measuring, messages.append)
    (sentence,) = messages
    assert "not a segmentor of maag, or damaged" in sentence


@pytest.fixture
def begin(tiny_config: Config, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Run trial `a` with a learning rate until it fails for lack of its data."""
    monkeypatch.setattr("ray.tune.get_context", lambda: SimpleNamespace(get_trial_id=lambda: "a"))
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)

    def begin(lr: float, *, exchange: bool = False) -> RunFolder:
        plan = TrialPlan(
            base=codec.to_dict(tiny_config), data_dir=str(tmp_path / "nowhere"), scribbles=(), data_digest="",
            cache_root=str(tmp_path / "cache"), split=split.to_dict(), trials_dir=str(tmp_path / "trials"),
            device="cpu", threads=torch.get_num_threads(), exchange=exchange,
        )  # fmt: skip
        with pytest.raises(MissingDataError, match="nowhere"):
            run_trial({"optim.lr": lr}, plan)
        return RunFolder(tmp_path / "trials" / "a")

    return begin


def rate_of(run: RunFolder) -> float:
    return float(codec.from_document(read_json(run.config), "").optim.lr)


@pytest.mark.slow
@pytest.mark.parametrize(("exchange", "storage", "handed"), [(False, None, 0), (True, None, 1), (False, "s", 1)])
def test_trial_reports_its_checkpoint_if_another_node_may_need_it(
    phantom_dir: Path, tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, exchange: bool, storage: str | None, handed: int,
) -> None:  # fmt: skip
    reports: list[tuple[int, int]] = []

    def report(metrics: dict[str, Any], checkpoint: object = None) -> None:
        reports.append((metrics["epoch"], int(checkpoint is not None)))

    monkeypatch.setattr("ray.tune.get_context", lambda: SimpleNamespace(get_trial_id=lambda: "a"))
    monkeypatch.setattr("ray.tune.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.tune.report", report)
    plan = TrialPlan(
        base=codec.to_dict(tiny_config), data_dir=str(phantom_dir), scribbles=(), data_digest=prepared.digest,
        cache_root=str(prepared.directory.parent), split=split.to_dict(), trials_dir=str(tmp_path / "trials"),
        device="cpu", threads=torch.get_num_threads(), exchange=exchange, storage=storage,
    )  # fmt: skip
    run_trial({"optim.epochs": 1, "optim.batch_size": 12}, plan)
    assert reports == [(1, handed)]


def test_trial_continues_in_its_own_folder(begin: Begin) -> None:
    run = begin(1e-3)
    run.metrics.write_text("of this sample")
    assert begin(1e-3) == run
    assert run.metrics.read_text() == "of this sample"
    assert rate_of(run) == 1e-3
    assert read_schedule(run.path / SCHEDULE) == []


def test_files_of_another_sample_in_a_trial_folder_are_removed(begin: Begin) -> None:
    run = begin(1e-3)
    run.metrics.write_text("of another sample")
    begin(2e-3)
    assert not run.metrics.exists()
    assert rate_of(run) == 2e-3
    assert run.split.exists()


def test_remains_of_a_half_removed_trial_folder_are_removed(begin: Begin) -> None:
    run = begin(1e-3)
    run.last.write_text("of another sample")
    run.config.unlink()
    begin(2e-3)
    assert not run.last.exists()
    assert rate_of(run) == 2e-3


def test_pbt_trial_with_changed_settings_keeps_its_folder(begin: Begin) -> None:
    run = begin(1e-3, exchange=True)
    run.metrics.write_text('{"epoch": 4}\n')
    begin(2e-3, exchange=True)
    assert run.metrics.exists()
    assert rate_of(run) == 2e-3
    assert [(line["from_epoch"], line["settings"]) for line in read_schedule(run.path / SCHEDULE)] == [
        (1, {"optim.lr": 1e-3}),
        (5, {"optim.lr": 2e-3}),
    ]
