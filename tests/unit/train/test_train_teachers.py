"""Finished models as teachers: which are refused, what they say together, and who learns from them."""

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

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return codec.override(tiny_config, {"teacher.decay": 0.9, "loss.teacher": 1.0, "optim.epochs": 1, **STUDENT})


def finished(folder: Path, config: Config, split: Split, *seeds: int) -> list[Path]:
    """Weights files as runs of `config` with these seeds would leave them before their first step."""
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
def test_a_teacher_of_other_images_and_one_whose_word_has_no_weight_are_refused(
    config: Config, split: Split, tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    (model,) = finished(tmp_path, config, split, 1)
    with pytest.raises(ConfigError, match="--teacher ") as caught:
        open_teachers([model], codec.override(config, changes), split)
    assert complaint in str(caught.value)
    assert str(model) in str(caught.value)


def test_a_teacher_may_see_slices_of_another_size(config: Config, split: Split, tmp_path: Path) -> None:
    models = finished(tmp_path, config, split, 1, 2)
    wider = codec.override(config, {"data.size_px": [48, 64]})
    assert [teacher.path for teacher in open_teachers(models, wider, split)] == models
    assert open_teachers([], codec.override(config, {"loss.teacher": 0.0}), split) == ()


def test_a_teacher_that_may_have_seen_who_validates_here_is_refused(
    config: Config, split: Split, tmp_path: Path
) -> None:
    (model,) = finished(tmp_path, config, split, 1)
    other = Split(
        scheme="other",
        **{**{part: getattr(split, part) for part in ("scribbled", "shapes")}, "val": split.test, "test": split.val},
    )
    with pytest.raises(SplitError, match=f"trained on split {split.digest}, and this run has {other.digest}"):
        open_teachers([model], config, other)


def test_each_of_several_teachers_must_fit(config: Config, split: Split, tmp_path: Path) -> None:
    (fits,) = finished(tmp_path, config, split, 1)
    (finer,) = finished(tmp_path, codec.override(config, {"data.spacing_mm": 3.0}), split, 2)
    (elsewhere,) = finished(tmp_path, config, replace(split, val=split.test, test=split.val), 3)
    with pytest.raises(ConfigError, match=f"--teacher {finer}: .* data.spacing_mm=3.0, and this run has 4.0"):
        open_teachers([fits, finer], config, split)
    with pytest.raises(SplitError, match=f"--teacher {elsewhere}: it was trained on split"):
        open_teachers([fits, elsewhere], config, split)


def test_where_the_teachers_are_is_written_and_read(config: Config, split: Split, tmp_path: Path) -> None:
    models = finished(tmp_path, config, split, 1, 2)
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


def test_teachers_are_found_again_from_another_folder(
    config: Config, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = finished(tmp_path, config, split, 1)
    monkeypatch.chdir(tmp_path)
    write_teachers(tmp_path / "teachers.json", open_teachers([Path(model.name)], config, split))
    assert read_teachers(tmp_path / "teachers.json") == (model,)


def test_a_run_goes_on_with_the_same_teachers_only(
    config: Config, split: Split, prepared: PreparedData, tmp_path: Path
) -> None:
    teachers = open_teachers(finished(tmp_path, config, split, 1, 2), config, split)
    run = create_run(tmp_path / "run", config, split, teachers)
    assert [str(teacher.path) for teacher in teachers] == [str(path) for path in read_teachers(run.teachers)]

    class AskingInTheFirstEpoch(Listeners):
        def on_epoch(self, report: EpochReport) -> None:
            stop.interrupt("enough")

    def go(folder: RunFolder, given: object = teachers, listener: Listeners | None = None) -> str:
        outcome = fit(
            twice, prepared, split, folder, device=CPU, listener=listener or Listeners(), stop=stop, resume=True,
            teachers=given,
        )  # type: ignore[arg-type] # fmt: skip
        return outcome.ending

    twice, stop = codec.override(config, {"optim.epochs": 2}), StopRequest()
    assert go(run, listener=AskingInTheFirstEpoch()) == "interrupted"
    stop = StopRequest()
    for wrong in ((), teachers[:1], teachers[::-1]):
        with pytest.raises(CheckpointError, match="name the same with --teacher, in the same order"):
            go(run, wrong)
    assert go(run) == "done"
    straight = create_run(tmp_path / "straight", config, split, teachers)
    assert go(straight) == "done"
    resumed, whole = (load_segmentor(folder.final) for folder in (run, straight))
    assert resumed.info["teachers"] == whole.info["teachers"] == [teacher.digest for teacher in teachers]
    for name, tensor in whole.segmentor.state_dict().items():
        torch.testing.assert_close(resumed.segmentor.state_dict()[name], tensor)


def test_what_is_learned_is_what_the_teachers_say(
    config: Config, split: Split, prepared: PreparedData, tmp_path: Path
) -> None:
    short, learned = codec.override(config, {"optim.batch_size": 8}), []
    for model in finished(tmp_path, config, split, 1, 2):
        teachers = open_teachers([model], short, split)
        run = create_run(tmp_path / model.stem, short, split, teachers)
        fit(
            short, prepared, split, run, device=CPU, listener=Listeners(), stop=StopRequest(), resume=False,
            teachers=teachers,
        )  # fmt: skip
        learned.append(load_segmentor(run.final).segmentor.classify.weight)
    assert not torch.allclose(*learned)


def test_ctrl_c_while_teachers_are_asked_ends_before_the_first_step_and_the_run_can_be_gone_on_with(
    config: Config, split: Split, prepared: PreparedData, tmp_path: Path
) -> None:
    teachers = open_teachers(finished(tmp_path, config, split, 1), config, split)
    told: list[int] = []

    def go(name: str, stop: StopRequest, *, asks: bool = False) -> Outcome:
        def said(done: int, total: int) -> None:
            told.append(done)
            assert total > 1
            if asks:
                stop.interrupt("enough")

        run = RunFolder(tmp_path / name)
        if not run.path.exists():
            create_run(run.path, config, split, teachers)
        return fit(
            config, prepared, split, run, device=CPU, listener=Listeners(), stop=stop, resume=True, teachers=teachers,
            teacher_progress=said,
        )  # fmt: skip

    stopped = go("run", StopRequest(), asks=True)
    assert (stopped.ending, stopped.steps, told) == ("interrupted", 0, [1])
    assert go("run", StopRequest()).ending == go("straight", StopRequest()).ending == "done"
    resumed, whole = (load_segmentor(tmp_path / name).segmentor.state_dict() for name in ("run", "straight"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor)
