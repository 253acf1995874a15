"""Every data set and every kind of supervision through the command line, for one epoch each."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Maag

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_cache")]

TINY = ("data.size_px=[32,32]", "segmentor.width=4", "discriminator.width=4", "optim.batch_size=4")
SPACING_MM = {"lvsc": 5.0, "chaos": 7.0, "chaos-ct": 10.0, "ppss": 5.0, "nnunet": 5.0, "folders": 5.0, "acdc": 5.0}


def train(
    maag: Maag, name: str, data: Path, out: Path, *changes: str, further: tuple[object, ...] = (), code: int = 0
) -> Any:
    settings = (f"data.spacing_mm={SPACING_MM[name]}", *TINY, *changes)
    words = [word for change in settings for word in ("--set", change)]
    return maag(
        "train", "--dataset", name, "--data", data, "--out", out, "--preset", "fast", "--epochs", 1, *words,
        *further, *(("--json",) if code == 0 else ()), code=code,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["lvsc", "chaos", "chaos-ct", "ppss", "nnunet", "folders"])
def test_every_data_set_can_be_trained_and_evaluated(maag: Maag, name: str, tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "run"
    maag("data", "phantom", "--dataset", name, "--out", data, "--cases", 6)
    settings = ("data.unlabelled_value=4",) if name == "folders" else ()
    outcome = train(maag, name, data, model, *settings)
    assert outcome["ending"] == "done"
    split = json.loads((model / "split.json").read_text())
    assert split["scribbled"]
    assert split["val"]
    measured = maag("evaluate", model, "--dataset", name, "--data", data, "--split", "val", "--json")
    assert measured["summary"]["num_cases"] >= 1
    config = json.loads((model / "config.json").read_text())
    assert set(measured["summary"]["per_class"]) == set(config["data"]["classes"][1:])


def test_semi_mixed_and_multi_rater_supervision_can_be_trained(maag: Maag, phantom_dir: Path, tmp_path: Path) -> None:
    semi = ("data.supervision=semi", "data.scribbled_fraction=0.5", "loss.adversarial_unlabelled=0.2")
    train(maag, "acdc", phantom_dir, tmp_path / "semi", *semi)
    split = json.loads((tmp_path / "semi" / "split.json").read_text())
    assert (len(split["scribbled"]), len(split["unlabelled"])) == (1, 1)

    train(maag, "acdc", phantom_dir, tmp_path / "mixed", "data.supervision=mixed", "data.dense_fraction=0.5")
    split = json.loads((tmp_path / "mixed" / "split.json").read_text())
    assert (len(split["scribbled"]), len(split["dense"])) == (1, 1)
    [line] = (tmp_path / "mixed" / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(line)["losses"]) >= {"scribbles", "dense", "supervised"}

    raters = ("--scribbles", "own", "--scribbles", "simulated:curve", "--scribbles", "simulated:skeleton-dilated:0.5")
    train(maag, "acdc", phantom_dir, tmp_path / "raters", "data.raters=weighted", further=raters)
    with (tmp_path / "raters" / "raters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rater"] for row in rows] == ["expert", "simulated:curve", "simulated:skeleton-dilated:0.5"]
    assert all(0 < float(row["weight"]) <= 1 for row in rows)


def test_masks_of_another_data_set_serve_as_shapes(maag: Maag, phantom_dir: Path, tmp_path: Path) -> None:
    maag("data", "phantom", "--dataset", "folders", "--out", tmp_path / "mine", "--cases", 10)
    (tmp_path / "mine" / "cases.csv").unlink()
    train(
        maag, "folders", tmp_path / "mine", tmp_path / "run", "data.unlabelled_value=4",
        further=("--shapes", phantom_dir, "--shapes-dataset", "acdc"),
    )  # fmt: skip
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["shapes"] == [f"acdc/patient{number:03}" for number in range(1, 7)]


def test_impossible_supervision_is_refused_before_training(maag: Maag, phantom_dir: Path, tmp_path: Path) -> None:
    text = train(maag, "acdc", phantom_dir, tmp_path / "a", "data.scribbled_fraction=0.1", code=1)
    assert "data.scribbled_fraction=0.1 of 2 patients leaves none" in text
    text = train(maag, "acdc", phantom_dir, tmp_path / "b", "data.supervision=semi", code=2)
    assert "needs loss.adversarial_unlabelled above 0" in text
    text = train(maag, "acdc", phantom_dir, tmp_path / "c", further=("--scribbles", "simulated:doodle"), code=2)
    assert "expected simulated:STYLE" in text
    assert not (tmp_path / "a" / "config.json").exists()
