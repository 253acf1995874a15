"""A run that stops and resumes is the run that did not stop; and every other way to end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.errors import CheckpointError, DeviceMemoryError, TrainingError
from maag.expected_dice import ExpectedDice, shortfall
from maag.inference import TorchRunner, likeliest
from maag.metrics import score_case
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.outcome import Outcome
from maag.train.reports import EpochReport, Listeners, Live
from maag.train.state import TrainState
from maag.train.stopping import StopRequest
from maag.train.validate import Validator

CPU = torch.device("cpu")


class StopAt:
    """A listener that asks to stop once `step` is reached."""

    def __init__(self, stop: StopRequest, step: int) -> None:
        self._stop, self._step = stop, step

    def on_live(self, live: Live) -> None:
        if live.step >= self._step:
            self._stop.ask("test")

    def on_epoch(self, report: EpochReport) -> None:
        pass

    def on_checkpoint(self, step: int) -> None:
        pass


def run_it(
    config: Config, prepared: PreparedData, split: Split, path: Path, *, stop_at: int = 10**9, resume: bool = False
) -> Outcome:
    run = RunFolder(path) if resume else create_run(path, config, split)
    stop = StopRequest()
    listener = StopAt(stop, stop_at)
    return fit(config, prepared, split, run, device=CPU, listener=listener, stop=stop, resume=resume)


def history(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("seconds", "steps_per_second")} for line in lines]


EVERYTHING = {
    "loss.adversarial_unlabelled": 0.2,
    "teacher.decay": 0.9,
    "teacher.confidence": 0.3,
    "loss.teacher": 1.0,
    "loss.areas": 0.1,
    "augment.elastic": 0.02,
    "augment.gamma": 0.3,
    "augment.interpolation": "cubic",
    "augment.cutout": 0.3,
    "optim.schedule": "poly",
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["MAAG", "everything"])
def test_a_resumed_run_equals_the_straight_one(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, {"optim.epochs": 3, "optim.batch_size": 2, **changes})
    whole = run_it(config, prepared, split, tmp_path / "whole")
    assert whole.ending == "done"
    per_epoch = whole.steps // 3
    # Losses are read every ten steps and at each epoch's end: once inside an epoch, once at its end.
    stopped = run_it(config, prepared, split, tmp_path / "parts", stop_at=1)
    assert stopped.ending == "interrupted"
    assert 0 < stopped.steps < per_epoch
    assert not (tmp_path / "parts" / "checkpoints" / "final.safetensors").exists()
    run_it(config, prepared, split, tmp_path / "parts", stop_at=per_epoch * 2, resume=True)
    resumed = run_it(config, prepared, split, tmp_path / "parts", resume=True)
    assert resumed.steps == whole.steps
    assert history(tmp_path / "parts") == history(tmp_path / "whole")
    _, one = checkpoint.load_state(tmp_path / "whole" / "checkpoints" / "last.pt", CPU)
    _, other = checkpoint.load_state(tmp_path / "parts" / "checkpoints" / "last.pt", CPU)
    parts = {"segmentor", "discriminator", "segmentor_optimizer", "discriminator_optimizer"}
    assert set(one["parts"]) == (parts | {"teacher", "areas"} if changes else parts)
    assert_same(one["parts"], other["parts"])


def test_what_is_exported_is_the_average(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    outcome = run_it(codec.override(tiny_config, EVERYTHING), prepared, split, tmp_path / "run")
    _, last = checkpoint.load_state(tmp_path / "run" / "checkpoints" / "last.pt", CPU)
    final = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / "final.safetensors").segmentor
    for name, tensor in final.state_dict().items():
        assert torch.equal(tensor, last["parts"]["teacher"][name])
    assert not torch.equal(final.classify.weight, last["parts"]["segmentor"]["classify.weight"])
    measured = Validator(prepared, split.val, tiny_config.data, CPU).dice(final).mean
    assert measured == pytest.approx(outcome.final_dice, abs=1e-6)


def test_offsets_that_gain_are_in_the_weights(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    config = codec.override(tiny_config, {**EVERYTHING, "train.class_offsets": True})
    split = replace(split, val=(*split.val, *split.test, split.shapes[0]), shapes=split.shapes[1:], test=())
    outcome = run_it(config, prepared, split, tmp_path / "run")
    _, last = checkpoint.load_state(tmp_path / "run" / "checkpoints" / "last.pt", CPU)
    final = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / "final.safetensors")
    offsets = torch.tensor(final.info["class_offsets"])
    assert offsets[0] == 0
    assert offsets.any()
    torch.testing.assert_close(final.segmentor.classify.bias, last["parts"]["teacher"]["classify.bias"] + offsets)

    as_saved = Validator(prepared, split.val, config.data, CPU).dice(final.segmentor).mean
    assert as_saved == pytest.approx(outcome.final_dice, abs=1e-6)
    with torch.no_grad():
        final.segmentor.classify.bias -= offsets
    assert Validator(prepared, split.val, config.data, CPU).dice(final.segmentor).mean < as_saved


def test_best_and_final_tell_how_far_they_overrate_themselves(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    split = replace(split, val=(*split.val, *split.test, split.shapes[0]), shapes=split.shapes[1:], test=())
    run_it(tiny_config, prepared, split, tmp_path / "run")
    for name in ("best", "final"):
        found = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / f"{name}.safetensors")
        runner, classes = TorchRunner(found.segmentor), tiny_config.data.classes
        real, expected = defaultdict(list), defaultdict(list)
        for case in prepared.cases:
            if case.patient_id in split.val:
                probabilities = runner(np.array(prepared.images[case.start : case.stop]))
                labels = likeliest(probabilities)
                asked = ExpectedDice(len(classes))
                asked.add(probabilities, labels)
                mask = prepared.masks[case.start : case.stop]
                scores = score_case(labels, np.array(mask), (1.0, 1.0, 1.0), classes)
                for each, dice in asked.by_class(classes).items():
                    real[each].append(scores[each].dice)
                    expected[each].append(dice)
        assert len(prepared.slices_of(split.val)) > 0
        wanted = {each: shortfall(real[each], expected[each]) for each in expected}
        assert found.info["shortfalls"] == pytest.approx(
            {each: value for each, value in wanted.items() if value is not None}, abs=1e-3
        )
        assert found.info["shortfalls"]


def test_best_and_final_tell_how_the_images_that_train_lie(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    training = {*split.scribbled, *split.dense, *split.unlabelled}
    lying = {patient: "LAS" for patient in split.scribbled[1:]}
    cases = tuple(
        replace(case, axes=lying.get(case.patient_id, "LPS") if case.patient_id in training else "RPS")
        for case in prepared.cases
    )
    run_it(tiny_config, replace(prepared, cases=cases), split, tmp_path / "run")
    wanted = Counter(case.axes for case in cases if case.patient_id in training)
    assert len(wanted) == 2
    for name in ("best", "final"):
        found = checkpoint.load_segmentor(tmp_path / "run" / "checkpoints" / f"{name}.safetensors")
        assert found.info["axes"] == [axes for axes, _ in wanted.most_common()]


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_it(tiny_config, prepared, split, tmp_path / "run", stop_at=1)
    before = (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes()
    broken = replace(prepared, images=np.full_like(prepared.images, np.nan))
    with pytest.raises(TrainingError, match=r"the supervised loss became nan .* the last good checkpoint is kept"):
        run_it(tiny_config, broken, split, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes() == before


def test_no_gain_ends_early(tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path) -> None:
    changes = {"optim.epochs": 50, "train.patience": 2, "train.min_delta": 1.0}
    outcome = run_it(codec.override(tiny_config, changes), prepared, split, tmp_path / "run")
    assert outcome.ending == "early"
    assert outcome.epochs_done == 3  # the first counts as a gain over nothing
    assert outcome.best_epoch == 1
    resumed = run_it(codec.override(tiny_config, changes), prepared, split, tmp_path / "run", resume=True)
    assert (resumed.ending, resumed.steps) == ("early", outcome.steps)
    assert resumed.steps_per_second == outcome.steps_per_second > 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps_per_second"] == outcome.steps_per_second
    for damaged in ("{", "[]"):
        (tmp_path / "run" / "result.json").write_text(damaged)
        run_it(codec.override(tiny_config, changes), prepared, split, tmp_path / "run", resume=True)
        assert json.loads((tmp_path / "run" / "result.json").read_text())["ending"] == "early"


def test_before_the_first_validation_nothing_is_the_best(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    config = codec.override(tiny_config, {"optim.epochs": 8, "train.validate_every": 4})
    outcome = run_it(config, prepared, split, tmp_path / "run", stop_at=1)
    assert (outcome.ending, outcome.best_dice, outcome.best_epoch) == ("interrupted", None, None)


def test_validations_that_a_time_limit_asks_for_use_up_no_patience(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    changes = {"optim.epochs": 50, "optim.batch_size": 1, "train.patience": 2, "train.min_delta": 1.0}
    config = codec.override(tiny_config, changes)
    run = create_run(tmp_path / "run", config, split)
    for step in range(1, 4):
        stop = StopRequest(max_minutes=1e-9)
        outcome = fit(config, prepared, split, run, device=CPU, listener=Listeners(), stop=stop, resume=step > 1)
        assert (outcome.ending, outcome.steps) == ("time", step)
    assert outcome.epochs_done < 1
    assert run_it(config, prepared, split, tmp_path / "run", resume=True).epochs_done == 2


def test_a_class_that_stands_nowhere_is_left_out_of_the_validation(
    tiny_config: Config, prepared: PreparedData, split: Split
) -> None:
    masks = np.where(prepared.masks == 2, 0, prepared.masks)
    segmentor = TrainState(tiny_config, CPU).segmentor
    torch.nn.init.zeros_(segmentor.classify.weight)
    with torch.no_grad():
        segmentor.classify.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    dice = Validator(replace(prepared, masks=masks), split.val, tiny_config.data, CPU).dice(segmentor)
    first, _, third = tiny_config.data.classes[1:]
    assert set(dice.per_class) == {first, third}
    assert dice.mean == pytest.approx(dice.per_class[first] / 2)


def test_time_over_ends_with_a_validation(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    stop = StopRequest(max_minutes=1e-9)
    run = create_run(tmp_path / "run", tiny_config, split)
    outcome = fit(tiny_config, prepared, split, run, device=CPU, listener=StopAt(stop, 10**9), stop=stop, resume=False)
    assert outcome.ending == "time"
    assert outcome.steps == 1
    assert outcome.final_dice is not None
    assert run.final.is_file()


def test_other_settings_or_data_are_refused_on_a_resume(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_it(tiny_config, prepared, split, tmp_path / "run", stop_at=1)
    with pytest.raises(CheckpointError, match="the settings changed"):
        run_it(codec.override(tiny_config, {"optim.lr": 1e-3}), prepared, split, tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="trained on other data"):
        run_it(tiny_config, replace(prepared, digest="other"), split, tmp_path / "run", resume=True)


def test_a_resume_with_other_patients_is_refused(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_it(tiny_config, prepared, split, tmp_path / "run", stop_at=1)
    exchanged = replace(split, scribbled=(*split.scribbled[1:], *split.val), val=split.scribbled[:1])
    said = rf"trained on split {split.digest}, and here it is {exchanged.digest}.*; restore its split\.json, or"
    with pytest.raises(CheckpointError, match=said):
        run_it(tiny_config, prepared, exchanged, tmp_path / "run", resume=True)


def test_a_run_of_an_earlier_version_which_knew_data_by_file_times_goes_on(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_it(tiny_config, replace(prepared, digest="08f8cbb0784f61f8"), split, tmp_path / "run", stop_at=1)
    run_it(tiny_config, prepared, split, tmp_path / "run", resume=True)


def test_damaged_checkpoints_are_named(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_it(tiny_config, prepared, split, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    for path, load in (
        (run.last, lambda: checkpoint.load_state(run.last, CPU)),
        (run.best, lambda: checkpoint.load_segmentor(run.best)),
    ):
        load()
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match=path.name):
            load()


class FullAt(StopAt):
    """A listener in whose place a GPU's memory is full."""

    def on_live(self, live: Live) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 1.00 MiB "
            "is free. Including non-PyTorch memory, this process has 7.70 GiB memory in use. See documentation."
        )


def test_a_full_memory_is_told_with_the_settings_that_fill_it(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run, stop = create_run(tmp_path / "run", tiny_config, split), StopRequest()
    sentence = (
        r"optim\.batch_size=4 and data\.size_px=\[32,32\] \(CUDA out of memory\. Tried to allocate 20\.00 MiB\. "
        r"GPU 0 has a total capacity of 7\.79 GiB of which 1\.00 MiB is free\); take less of either, or free it"
    )
    with pytest.raises(DeviceMemoryError, match=sentence):
        fit(tiny_config, prepared, split, run, device=CPU, listener=FullAt(stop, 0), stop=stop, resume=False)


def test_the_memory_of_earlier_runs_in_the_process_is_not_counted(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def reset(device: torch.device) -> None:
        asked.append(f"reset {device}")
        raise InterruptedError  # there is no GPU to go on with

    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    run, stop, gpu = create_run(tmp_path / "run", tiny_config, split), StopRequest(), torch.device("cuda", 1)
    with pytest.raises(InterruptedError):
        fit(tiny_config, prepared, split, run, device=gpu, listener=Listeners(), stop=stop, resume=False)
    assert asked == ["init", "reset cuda:1"]
