"""Two stages through the command line: a second run trains on the first model's labels, or as its student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Maag

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_cache")]


def test_second_stage_trains_on_labels_of_the_first(
    maag: Maag, phantom_dir: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    source = ("--dataset", "acdc", "--data", phantom_dir)
    first, labels, second = tmp_path / "first", tmp_path / "labels", tmp_path / "second"
    maag("train", *source, "--out", first, *tiny_options, "--epochs", 1)

    # After one epoch the model is certain of little, so the threshold admits nearly everything.
    report = maag("data", "relabel", first, *source, "--out", labels, "--entropy", 0.95, "--json")
    assert report == {"out": str(labels), **json.loads((labels / "relabelling.json").read_text())}
    assert (report["num_patients"], report["num_cases"]) == (2, 4)
    assert sum(item["labelled"]["percent"] for item in report["classes"]) > sum(
        item["drawn"]["percent"] for item in report["classes"]
    )
    assert f"--scribbles {labels} --split-file {labels / 'split.json'}" in maag.text
    assert "data.unlabelled_value" not in maag.text

    maag("train", *source, "--scribbles", labels, "--out", second, *tiny_options, "--epochs", 1)
    assert json.loads((second / "split.json").read_text()) == json.loads((first / "split.json").read_text())
    assert json.loads((second / "result.json").read_text())["ending"] == "done"

    text = maag("data", "relabel", first, *source, "--out", labels, code=1)
    assert "it exists and is not empty" in text
    weights = first / "checkpoints" / "final.safetensors"
    text = maag("data", "relabel", weights, "--dataset", "lvsc", "--out", tmp_path / "other", code=2)
    assert "was trained on data set 'acdc', but --dataset is 'lvsc'" in text


def test_student_trains_with_the_first_run_as_teacher(
    maag: Maag, phantom_dir: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    source = ("--dataset", "acdc", "--data", phantom_dir)
    first, second = tmp_path / "first", tmp_path / "second"
    maag("train", *source, "--out", first, *tiny_options, "--epochs", 1)

    words = ("train", *source, "--out", second, *tiny_options, "--teacher", first)
    text = maag(*words, code=2)
    assert "loss.teacher is 0, so its soft labels would have no weight" in text
    assert not (second / "config.json").exists()
    teacher_settings = ("--set", "loss.teacher=1", "--set", "teacher.decay=0.9")
    maag(*words, *teacher_settings, "--epochs", 1)
    settings = json.loads((second / "config.json").read_text())["teacher"]
    assert (settings["ramp"], settings["confidence"]) == (0, 0)
    (teacher,) = json.loads((second / "teachers.json").read_text())["teachers"]
    assert teacher["path"] == str(first / "checkpoints" / "best.safetensors")
    line = json.loads((second / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["losses"]["teacher"] > 0

    # A resumed student knows its teacher, and notices if the file holds another model.
    maag("train", *source, "--out", second, "--resume", "--epochs", 2)
    assert json.loads((second / "result.json").read_text())["epochs_done"] == 2
    (first / "checkpoints" / "best.safetensors").write_bytes(
        (second / "checkpoints" / "final.safetensors").read_bytes()
    )
    text = maag("train", *source, "--out", second, "--resume", "--epochs", 3, code=1)
    assert "name the same with --teacher" in text
