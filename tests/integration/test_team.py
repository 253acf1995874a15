"""Several workers that share a batch compute what one worker does with the whole of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import team_worker
import torch
from short_runs import ALL_AUGMENTATIONS, ALL_TERMS

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.catalog import reader_of
from maag.data.split_making import make_split
from maag.data.splits import Split

pytestmark = pytest.mark.integration
SYNCHRONISED = {
    "segmentor.sync_batchnorm": True,
    "loss.adversarial_unlabelled": 0.2,
    "discriminator.instance_noise": 0.2,
    "discriminator.label_noise": 0.3,
}
TEACHER = {"teacher.decay": 0.9, "loss.teacher": 1.0}
MIXED = {"data.supervision": "mixed", "data.dense_fraction": 0.5, "loss.dense_overlap": 1.0}


class Teams:
    """Runs `team_worker.work` as teams of up to as many workers as there are processes."""

    def __init__(self, data_dir: Path, prepared: PreparedData, folder: Path, processes: list[Executor]) -> None:
        self._data_dir, self._prepared, self._folder, self._processes = data_dir, prepared, folder, processes

    def do(self, what: str, config: Config, split: Split, size: int) -> list[dict[str, Any]]:
        folder = self._folder / f"{what}-{size}-{codec.digest(config)}"
        folder.mkdir()
        task = {
            "do": what,
            "config": codec.to_dict(config),
            "split": split.to_dict(),
            "prepared": str(self._prepared.directory),
            "data": str(self._data_dir),
        }
        (folder / "task.json").write_text(json.dumps(task))
        work = [
            process.submit(team_worker.work, rank, size, folder) for rank, process in enumerate(self._processes[:size])
        ]
        for each in work:
            each.result(timeout=120)
        return [torch.load(folder / f"result-{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def processes() -> Iterator[list[Executor]]:
    """Three processes for all tests, as each takes seconds to import torch."""
    with ExitStack() as stack:
        context = get_context("spawn")
        yield [stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for _ in range(3)]


@pytest.fixture
def teams(phantom_dir: Path, prepared: PreparedData, tmp_path: Path, processes: list[Executor]) -> Teams:
    return Teams(phantom_dir, prepared, tmp_path, processes)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        (SYNCHRONISED, 2),
        ({**SYNCHRONISED, "optim.batch_size": 5, **MIXED}, 2),
        ({**SYNCHRONISED, "optim.batch_size": 4, "loss.dynamic_balance": False, "loss.class_weights": False}, 3),
        ({"segmentor.sync_batchnorm": True, "loss.adversarial": 0.0}, 2),
        ({**SYNCHRONISED, **ALL_TERMS, **ALL_AUGMENTATIONS, "optim.batch_size": 5}, 2),
        ({**SYNCHRONISED, **ALL_TERMS, **ALL_AUGMENTATIONS, **MIXED}, 3),
    ],
    ids=["halves", "uneven and mixed", "three and plain", "partial cross-entropy", "teacher", "teacher and mixed"],
)
def test_workers_sharing_a_batch_compute_the_update_of_one_worker(
    teams: Teams, tiny_config: Config, prepared: PreparedData, changes: dict[str, Any], size: int
) -> None:
    config = codec.override(tiny_config, changes)
    split = make_split(prepared.patients, config.data, reader_of("acdc").split0)
    (whole,) = teams.do("steps", config, split, 1)
    parts = teams.do("steps", config, split, size)
    for part in parts:
        assert torch.equal(part["weights"], parts[0]["weights"])
        assert set(part["after_first"]) == set(whole["after_first"])
        for name, expected in whole["after_first"].items():
            # What is zero but for rounding, such as the bias before a normalisation, has no relative size.
            scale = max(float(expected.abs().max()), 1e-3)
            torch.testing.assert_close(
                part["after_first"][name],
                expected,
                rtol=0,
                atol=1e-5 * scale,
                msg=lambda text, name=name: f"{name}: {text}",
            )
        assert part["losses"] == parts[0]["losses"]
        for found, expected in zip(part["losses"], whole["losses"], strict=True):
            assert found == pytest.approx(expected, rel=1e-5)


def test_validation_does_not_depend_on_the_number_of_workers(teams: Teams, tiny_config: Config, split: Split) -> None:
    (whole,) = teams.do("validate", tiny_config, split, 1)
    for size in (2, 3):
        assert all(part == whole for part in teams.do("validate", tiny_config, split, size))


def test_soft_labels_do_not_depend_on_the_number_of_workers(teams: Teams, tiny_config: Config, split: Split) -> None:
    config = codec.override(tiny_config, {**TEACHER, "teacher.rotation_deg": 30.0})
    (whole,) = teams.do("ask teachers", config, split, 1)
    assert whole["soft_labels"].any()
    for size in (2, 3):
        for part in teams.do("ask teachers", config, split, size):
            assert torch.equal(part["soft_labels"], whole["soft_labels"])


def test_workers_with_uneven_parts_finish_together(teams: Teams, tiny_config: Config, split: Split) -> None:
    config = codec.override(tiny_config, {"optim.batch_size": 5})
    outcomes = teams.do("fit", config, split, 2)
    assert outcomes[0]["ending"] == "done"
    assert outcomes[0] == outcomes[1]


def test_trained_weights_do_not_depend_on_the_validation_interval(
    teams: Teams, tiny_config: Config, split: Split
) -> None:
    changes = {**TEACHER, "teacher.confidence": 0.3, "optim.epochs": 2, "optim.batch_size": 2}
    found = [
        teams.do("fit and look", codec.override(tiny_config, {**changes, "train.validate_every": every}), split, 2)
        for every in (1, 2)
    ]
    often, seldom = (workers[0]["weights"] for workers in found)
    for name, tensor in often.items():
        assert torch.equal(seldom[name], tensor), name


@pytest.mark.parametrize(("what", "missing"), [("prepare", "nowhere"), ("prepare a teacher", "teacher-1.safetensors")])
def test_files_missing_on_one_node_are_reported_by_all(
    teams: Teams, tiny_config: Config, split: Split, what: str, missing: str
) -> None:
    reports = teams.do(what, codec.override(tiny_config, TEACHER), split, 2)
    assert reports[0] == reports[1]
    assert reports[0]["kind"] == "MissingDataError"
    assert "on node " in reports[0]["error"]
    assert missing in reports[0]["error"]


def test_data_other_than_at_the_start_are_refused_by_all_nodes(teams: Teams, tiny_config: Config, split: Split) -> None:
    reports = teams.do("prepare other data", tiny_config, split, 2)
    assert reports[0] == reports[1]
    assert reports[0]["kind"] == "DataError"
    assert "than training began with (other)" in reports[0]["error"]


def test_different_teachers_on_nodes_are_refused_by_all_nodes(teams: Teams, tiny_config: Config, split: Split) -> None:
    reports = teams.do("prepare other teachers", codec.override(tiny_config, TEACHER), split, 2)
    assert [each["kind"] for each in reports] == ["CheckpointError"] * 2
    assert all("the nodes have different teachers there" in each["error"] for each in reports)
