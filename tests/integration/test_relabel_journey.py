"""Two stages as a user types them: train, label where the model is sure, train on that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journeys import Command

pytestmark = pytest.mark.integration


def run(*words: object, code: int = 0) -> tuple[str, str]:
    command = Command(*words)
    found, stdout = command.end()
    assert found == code, command.text
    return stdout, command.text


def test_a_second_stage_trains_on_the_firsts_labels(
    phantom_dir: Path, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    source = ("--dataset", "acdc", "--data", phantom_dir)
    first, labels, second = tmp_path / "first", tmp_path / "labels", tmp_path / "second"
    run("train", *source, "--out", first, *tiny_words, "--epochs", 1)

    # After an epoch the model is sure of little, so nearly everything counts.
    stdout, text = run("data", "relabel", first, *source, "--out", labels, "--entropy", 0.95, "--json")
    report = json.loads(stdout.splitlines()[-1])
    assert report == {"out": str(labels), **json.loads((labels / "relabelling.json").read_text())}
    assert (report["num_patients"], report["num_cases"]) == (2, 4)
    assert sum(item["labelled"]["percent"] for item in report["classes"]) > sum(
        item["drawn"]["percent"] for item in report["classes"]
    )
    assert f"--scribbles {labels} --split-file {labels / 'split.json'}" in text
    assert "data.unlabelled_value" not in text

    run("train", *source, "--scribbles", labels, "--out", second, *tiny_words, "--epochs", 1)
    assert json.loads((second / "split.json").read_text()) == json.loads((first / "split.json").read_text())
    assert json.loads((second / "result.json").read_text())["ending"] == "done"

    _, text = run("data", "relabel", first, *source, "--out", labels, code=1)
    assert "it is there and not empty" in text
    weights = first / "checkpoints" / "final.safetensors"
    _, text = run("data", "relabel", weights, "--dataset", "lvsc", "--out", tmp_path / "other", code=2)
    assert "was trained on data set 'acdc', --dataset says 'lvsc'" in text
