"""Finished models as teachers: which are refused, how they are recorded, and what is learned from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maag.checkpoint import FINAL, load_segmentor, save_segmentor
from maag.config import codec
from maag.config.presets import STUDENT
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.errors import CheckpointError, ConfigError, DataError, SplitError
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.outcome import Outcome
from maag.train.reports import EpochReport, Listeners
from maag.train.second_stage.teachers import open_teachers, read_teachers, write_teachers
from maag.train.state import TrainState
from maag.train.stopping import StopRequest

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture
def config(short_config: Config) -> Config:
    return codec.override(short_config, {"teacher.decay": 0.9, "loss.teacher": 1.0, "optim.epochs": 1, **STUDENT})


def save_models(folder: Path, config: Config, split: Split, *seeds: int) -> list[Path]:
    """Save weights as runs of `config` with these seeds have them before their first step."""
    files = []
    for seed in seeds:
        segmentor = TrainState(codec.override(config, {"train.seed": seed}), CPU).segmentor
        files.append(folder / f"{seed}-{FINAL}")
        save_segmentor(files[-1], config, segmentor.state_dict(), {"kind": "final", "split_digest": split.digest})
    return files


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"loss.teacher": 0.0}, "loss.teacher is 0, so its soft labels would have no weight"),
        ({"data.spacing_mm": 3.0}, "data.spacing_mm=4.0, and this run has 3.0"),
        ({"data.normalization": "unit"}, "data.normalization=robust, and this run has unit"),
        ({"data.classes": ["background", "RV", "LV", "MYO"]}, "data.classes="),
        ({"data.channels": 2}, "data.channels=1, and this run has 2"),
        ({"data.modality": "t2spir"}, "and this run has t2spir"),
    ],
)
def test_teachers_with_other_data_settings_or_no_loss_weight_are_refused(
    config: Config, split: Split, tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    (model,) = save_models(tmp_path, config, split, 1)
    with pytest.raises(ConfigError, match="--teacher ") as caught:
        open_teachers([model], codec.override(config, changes), split)
    assert complaint in str(caught.value)
    assert str(model) in str(caught.value)


def test_a_teacher_may_have_another_slice_size(config: Config, split: Split, tmp_path: Path) -> None:
    models = save_models(tmp_path, config, split, 1, 2)
    wider = codec.override(config, {"data.size_px": [48, 64]})
    assert [teacher.path for teacher in open_teachers(models, wider, split)] == models
    assert open_teachers([], codec.override(config, {"loss.teacher": 0.0}), split) == ()


def test_a_teacher_trained_on_another_split_is_refused(config: Config, split: Split, tmp_path: Path) -> None:
    (model,) = save_models(tmp_path, config, split, 1)
    other = Split(
        scheme="other",
        **{**{part: getattr(split, part) for part in ("scribbled", "shapes")}, "val": split.test, "test": split.val},
    )
    with pytest.raises(SplitError, match=f"trained on split {split.digest}, and this run has {other.digest}"):
        open_teachers([model], config, other)


def test_each_of_several_teachers_must_fit(config: Config, split: Split, tmp_path: Path) -> None:
    (fits,) = save_models(tmp_path, config, split, 1)
    (finer,) = save_models(tmp_path, codec.override(config, {"data.spacing_mm": 3.0}), split, 2)
    (other_split,) = save_models(tmp_path, config, replace(split, val=split.test, test=split.val), 3)
    with pytest.raises(ConfigError, match=f"--teacher {finer}: .* data.spacing_mm=3.0, and this run has 4.0"):
        open_teachers([fits, finer], config, split)
    with pytest.raises(SplitError, match=f"--teacher {other_split}: it was trained on split"):
        open_teachers([fits, other_split], config, split)


def test_teacher_paths_are_written_and_read(config: Config, split: Split, tmp_path: Path) -> None:
    models = save_models(tmp_path, config, split, 1, 2)
    path = tmp_path / "teachers.json"
    assert read_teachers(path) == ()
    write_teachers(path, open_teachers(models, config, split))
    assert read_teachers(path) == tuple(models)
    path.write_text(json.dumps({"format_version": 9, "teachers": []}))
    with pytest.raises(DataError, match="format_version 9 is unknown"):
        read_teachers(path)
    for damaged in ("[]", "{}", '{"format_version": 1, "teachers": [{}]}'):
        path.write_text(damaged)
        with pytest.raises(DataError, match="name them with --teacher"):
            read_teachers(path)


def test_teacher_paths_are_stored_as_absolute_paths(
    config: Config, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = save_models(tmp_path, config, split, 1)
    monkeypatch.chdir(tmp_path)
    write_teachers(tmp_path / "teachers.json", open_teachers([Path(model.name)], config, split))
    assert read_teachers(tmp_path / "teachers.json") == (model,)


def test_a_run_resumes_only_with_the_same_teachers(
    config: Config, split: Split, prepared: PreparedData, tmp_path: Path
) -> None:
    teachers = open_teachers(save_models(tmp_path, config, split, 1, 2), config, split)
    run = create_run(tmp_path / "run", config, split, teachers)
    assert [str(teacher.path) for teacher in teachers] == [str(path) for path in read_teachers(run.teachers)]

    class StopInTheFirstEpoch(Listeners):
        def on_epoch(self, report: EpochReport) -> None:
            stop.interrupt("enough")

    def train(folder: RunFolder, chosen: object = teachers, listener: Listeners | None = None) -> str:
        outcome = fit(
            two_epochs, prepared, split, folder, device=CPU, listener=listener or Listeners(), stop=stop, resume=True,
            teachers=chosen,
        )  # type: ignore[arg-type] # fmt: skip
        return outcome.ending

    two_epochs, stop = codec.override(config, {"optim.epochs": 2}), StopRequest()
    assert train(run, listener=StopInTheFirstEpoch()) == "interrupted"
    stop = StopRequest()
    for wrong in ((), teachers[:1], teachers[::-1]):
        with pytest.raises(CheckpointError, match="name the same with --teacher, in the same order"):
            train(run, wrong)
    assert train(run) == "done"
    uninterrupted = create_run(tmp_path / "straight", config, split, teachers)
    assert train(uninterrupted) == "done"
    resumed, whole = (load_segmentor(folder.final) for folder in (run, uninterrupted))
    assert resumed.info["teachers"] == whole.info["teachers"] == [teacher.digest for teacher in teachers]
    for name, tensor in whole.segmentor.state_dict().items():
        torch.testing.assert_close(resumed.segmentor.state_dict()[name], tensor)


def test_different_teachers_give_different_students(
    config: Config, split: Split, prepared: PreparedData, tmp_path: Path
) -> None:
    learned = []
    for model in save_models(tmp_path, config, split, 1, 2):
        teachers = open_teachers([model], config, split)
        run = create_run(tmp_path / model.stem, config, split, teachers)
        fit(
            config, prepared, split, run, device=CPU, listener=Listeners(), stop=StopRequest(), resume=False,
            teachers=teachers,
        )  # fmt: skip
        learned.append(load_segmentor(run.final).segmentor.classify.weight)
    assert not torch.allclose(*learned)


def test_a_run_interrupted_during_teacher_prediction_takes_no_step_and_resumes(
    config: Config, split: Split, prepared: PreparedData, tmp_path: Path
) -> None:
    teachers = open_teachers(save_models(tmp_path, config, split, 1), config, split)
    reported: list[int] = []

    def train(name: str, stop: StopRequest, *, interrupts: bool = False) -> Outcome:
        def on_progress(done: int, total: int) -> None:
            reported.append(done)
            assert total > 1
            if interrupts:
                stop.interrupt("enough")

        run = RunFolder(tmp_path / name)
        if not run.path.exists():
            create_run(run.path, config, split, teachers)
        return fit(
            config, prepared, split, run, device=CPU, listener=Listeners(), stop=stop, resume=True, teachers=teachers,
            teacher_progress=on_progress,
        )  # fmt: skip

    stopped = train("run", StopRequest(), interrupts=True)
    assert (stopped.ending, stopped.steps, reported) == ("interrupted", 0, [1])
    assert train("run", StopRequest()).ending == train("straight", StopRequest()).ending == "done"
    resumed, whole = (load_segmentor(tmp_path / name).segmentor.state_dict() for name in ("run", "straight"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor)
