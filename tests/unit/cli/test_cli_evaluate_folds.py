"""`maag evaluate` with the models of a cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from maag.checkpoint import save_segmentor
from maag.cli import main
from maag.config.codec import override
from maag.data.catalog import preset
from maag.data.splits import Split
from maag.models.build import build_segmentor
from maag.storage import read_json, write_json

CONFIG = override(preset("acdc", "fast"), {"data.size_px": [32, 32], "data.spacing_mm": 4.0, "segmentor.width": 2})


def write_run(folder: Path, *val: str, label: int = 1, changes: dict[str, Any] | None = None) -> Path:
    """A run with its split, whose segmentor gives every pixel the `label`."""
    split, config = Split(scheme="fold", scribbled=("patient001",), val=val), override(CONFIG, changes or {})
    (folder / "checkpoints").mkdir(parents=True)
    weights = {name: torch.zeros_like(weight) for name, weight in build_segmentor(config).state_dict().items()}
    weights["classify.bias"][label] = 9
    about = {"kind": "best", "split_digest": split.digest}
    save_segmentor(folder / "checkpoints" / "best.safetensors", config, weights, about)
    write_json(folder / "split.json", split.to_dict())
    return folder


def evaluate(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, words)])
    return int(str(caught.value.code))


@pytest.mark.slow
def test_every_case_is_measured_with_the_model_that_did_not_train_on_it(phantom_dir: Path, tmp_path: Path) -> None:
    patients = ("patient002", "patient003")
    runs = [write_run(tmp_path / patient, patient, label=label) for label, patient in enumerate(patients, start=1)]
    data = ("--dataset", "acdc", "--data", phantom_dir)
    assert evaluate(*runs, *data, "--largest-component", "--out", tmp_path / "pooled") == 0
    assert all(evaluate(run, *data, "--largest-component") == 0 for run in runs)
    for refinement in ("", "largest-component"):
        pooled = read_json(tmp_path / "pooled" / refinement / "report.json")
        alone = [read_json(run / "evaluation-val" / refinement / "report.json") for run in runs]
        assert pooled["cases"] == [case for report in alone for case in report["cases"]]
        assert pooled["summary"]["num_patients"] == 2
        assert pooled["subject"]["model"] == f"{runs[0]}, {runs[1]}"
        assert pooled["subject"]["checkpoint_kind"] == "best"
        for name in ("model_digest", "split_digest"):
            assert pooled["subject"][name] == ", ".join(report["subject"][name] for report in alone)
    found = [{name: scores["dice"] for name, scores in case["scores"].items()} for case in pooled["cases"]]
    assert [[name for name, dice in each.items() if dice] for each in found] == [["RV"]] * 2 + [["MYO"]] * 2


def test_models_measured_on_a_common_patient_are_refused(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_run(tmp_path / "one", "patient002", "patient003")
    two = write_run(tmp_path / "two", "patient003")
    assert evaluate(one, two, "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "out") == 2
    assert f"patient patient003 is in split 'val' of {one} and of {two};" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_models_with_different_classes_are_refused(
    phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_run(tmp_path / "one", "patient002")
    two = write_run(tmp_path / "two", "patient003", changes={"data.classes": ["background", "RV", "wall", "LV"]})
    assert evaluate(one, two, "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "out") == 2
    assert "data.classes is ('background', 'RV', 'MYO', 'LV') in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "the common report of 2 models needs a folder of its own; give --out DIR"),
        (("--out", "out", "--split-file", "one/split.json"), "--split-file: 2 models are measured on the patients of"),
    ],
)
def test_options_that_do_not_apply_to_several_models_are_refused(
    options: tuple[str, ...],
    sentence: str,
    phantom_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("one"), "patient002")
    write_run(Path("two"), "patient003")
    assert evaluate("one", "two", "--dataset", "acdc", "--data", phantom_dir, *options) == 2
    assert sentence in capsys.readouterr().err
