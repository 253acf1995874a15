"""What one call of `fit` passes to the parts of a run, and what it reports at the end."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData, joined_digest
from maag.data.slices.shard import Shard
from maag.data.splits import Split
from maag.errors import CheckpointError, ConfigError
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.outcome import Outcome, peak_memory_mib
from maag.train.reports import Listeners
from maag.train.stopping import StopRequest
from maag.train.team import ALONE, Team

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


class Trainer:
    """Trains in one folder, and resumes what is there."""

    def __init__(self, prepared: PreparedData, split: Split, path: Path) -> None:
        self.prepared, self.split, self.run = prepared, split, RunFolder(path)

    def __call__(
        self,
        config: Config,
        *,
        max_minutes: float | None = None,
        shapes: PreparedData | None = None,
        other_settings: bool = False,
        team: Team = ALONE,
    ) -> Outcome:
        if not self.run.path.exists():
            create_run(self.run.path, config, self.split)
        return fit(
            config, self.prepared, self.split, self.run, device=CPU, listener=Listeners(),
            stop=StopRequest(max_minutes), resume=True, shapes=shapes, other_settings=other_settings, team=team,
        )  # fmt: skip

    def one_step(self, config: Config, **more: object) -> Outcome:
        return self(config, max_minutes=1e-9, **more)  # type: ignore[arg-type]


@pytest.fixture
def trainer(prepared: PreparedData, split: Split, tmp_path: Path) -> Trainer:
    return Trainer(prepared, split, tmp_path / "run")


def test_the_result_records_progress_and_provenance(short_config: Config, trainer: Trainer) -> None:
    # No gain is that large, so that the first validation stays the best.
    config = codec.override(short_config, {"optim.epochs": 1, "train.min_delta": 1.0})
    stopped = trainer.one_step(config)
    assert json.loads(trainer.run.result.read_text()) == {"format_version": 1, **asdict(stopped)}
    assert stopped.run == str(trainer.run.path)
    assert (stopped.config_digest, stopped.split_digest) == (codec.digest(config), trainer.split.digest)
    assert stopped.data_digest == trainer.prepared.digest
    assert stopped.seconds > 0
    whole = trainer(config)
    assert (stopped.steps, whole.epochs_done) == (1, 1)
    assert stopped.epochs_done == 1 / whole.steps < 1
    assert whole.seconds > stopped.seconds
    assert whole.best_dice == stopped.best_dice == stopped.final_dice != whole.final_dice
    for path, dice in ((trainer.run.best, whole.best_dice), (trainer.run.final, whole.final_dice)):
        info = checkpoint.load_segmentor(path).info
        assert (info["dice"], info["split_scheme"]) == (dice, trainer.split.scheme)
    assert whole.steps_per_second not in (0, stopped.steps_per_second)


def test_resuming_a_finished_run_keeps_its_speed_and_peak_memory(short_config: Config, trainer: Trainer) -> None:
    config = codec.override(short_config, {"optim.epochs": 1})
    result = asdict(trainer(config))
    trainer.run.result.write_text(
        json.dumps({**result, "steps_per_second": 7.5, "peak_memory_mib": 1.5, "seconds": 0.0})
    )
    resumed = trainer(config)
    assert (resumed.steps_per_second, resumed.peak_memory_mib) == (7.5, 1.5)
    assert resumed.seconds > 0
    trainer.run.result.write_text(json.dumps({"steps_per_second": 2.5}))
    resumed = trainer(config)
    assert resumed.steps_per_second == 2.5
    assert resumed.peak_memory_mib > 1.5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts there in known units")
def test_peak_memory_is_in_mebibytes() -> None:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kibibytes, unit = lines["VmHWM"].split()
    assert unit == "kB"
    assert peak_memory_mib(CPU) == pytest.approx(int(kibibytes) / 1024, rel=0.05)


def test_separate_shapes_are_part_of_the_data_digest_and_needed_to_resume(
    short_config: Config, trainer: Trainer
) -> None:
    trainer.split = replace(trainer.split, shapes=())
    outcome = trainer.one_step(short_config, shapes=trainer.prepared)
    digest = joined_digest(trainer.prepared, trainer.prepared)
    assert outcome.data_digest == digest != trainer.prepared.digest
    assert checkpoint.load_segmentor(trainer.run.final).info["data_digest"] == digest
    with pytest.raises(CheckpointError, match="trained on other data"):
        trainer(codec.override(short_config, {"loss.adversarial": 0.0}), other_settings=True)


def test_a_run_resumes_with_other_settings_only_on_request(short_config: Config, trainer: Trainer) -> None:
    trainer.one_step(short_config)
    other = codec.override(short_config, {"optim.lr": 1e-3})
    with pytest.raises(CheckpointError, match="the settings have changed"):
        trainer.one_step(other)
    assert trainer.one_step(other, other_settings=True).steps == 2


def test_only_the_leading_worker_writes_results(short_config: Config, trainer: Trainer) -> None:
    class Second(Team):
        """A worker whose sums cover only its own values."""

        shard = Shard(1, 2)

    two_raters = replace(
        trainer.prepared,
        raters=("a", "b"),
        scribbles=trainer.prepared.scribbles.repeat(2, axis=1),
        cases=tuple(replace(case, raters=("a", "b") if case.raters else ()) for case in trainer.prepared.cases),
    )
    config = codec.override(short_config, {"data.raters": "weighted", "optim.epochs": 1})
    first, second = (
        Trainer(two_raters, trainer.split, trainer.run.path / "first"),
        Trainer(two_raters, trainer.split, trainer.run.path / "second"),
    )
    assert first(config).ending == second(config, team=Second()).ending == "done"
    written, begun = (sorted(path.name for path in each.run.path.iterdir()) for each in (first, second))
    assert begun == ["checkpoints", "config.json", "split.json"]
    assert not list((second.run.path / "checkpoints").iterdir())
    assert {*written} - {*begun} == {"metrics.jsonl", "raters.csv", "result.json", "tensorboard"}
    assert len(list((first.run.path / "checkpoints").iterdir())) == 3


def test_unsupported_settings_are_refused_before_anything_is_written(
    short_config: Config, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"train\.compile=true: on a CPU it needs a C\+\+ compiler"):
        trainer(codec.override(short_config, {"train.compile": True}))
    assert not trainer.run.tensorboard.exists()
