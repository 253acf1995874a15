"""What one call of `fit` hands on to all parts of a run, and what it tells of it in the end."""

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

CPU = torch.device("cpu")


class Go:
    """Trains a little, in one folder, which is gone on with."""

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
def go(prepared: PreparedData, split: Split, tmp_path: Path) -> Go:
    return Go(prepared, split, tmp_path / "run")


def test_the_result_tells_how_far_the_run_came_and_of_what_it_is(tiny_config: Config, go: Go) -> None:
    # No gain is as large, so that the first validation stays the best.
    config = codec.override(tiny_config, {"optim.batch_size": 2, "optim.epochs": 1, "train.min_delta": 1.0})
    stopped = go.one_step(config)
    assert json.loads(go.run.result.read_text()) == {"format_version": 1, **asdict(stopped)}
    assert stopped.run == str(go.run.path)
    assert (stopped.config_digest, stopped.split_digest) == (codec.digest(config), go.split.digest)
    assert stopped.data_digest == go.prepared.digest
    assert stopped.seconds > 0
    whole = go(config)
    assert (stopped.steps, whole.epochs_done) == (1, 1)
    assert stopped.epochs_done == 1 / whole.steps < 1
    assert whole.seconds > stopped.seconds
    assert whole.best_dice == stopped.best_dice == stopped.final_dice != whole.final_dice
    for path, dice in ((go.run.best, whole.best_dice), (go.run.final, whole.final_dice)):
        info = checkpoint.load_segmentor(path).info
        assert (info["dice"], info["split_scheme"]) == (dice, go.split.scheme)
    assert whole.steps_per_second not in (0, stopped.steps_per_second)


def test_what_can_only_be_measured_of_steps_stays_where_none_is_left(tiny_config: Config, go: Go) -> None:
    config = codec.override(tiny_config, {"optim.batch_size": 8, "optim.epochs": 1})
    result = asdict(go(config))
    go.run.result.write_text(json.dumps({**result, "steps_per_second": 7.5, "peak_memory_mib": 1.5, "seconds": 0.0}))
    again = go(config)
    assert (again.steps_per_second, again.peak_memory_mib) == (7.5, 1.5)
    assert again.seconds > 0
    go.run.result.write_text(json.dumps({"steps_per_second": 2.5}))
    again = go(config)
    assert again.steps_per_second == 2.5
    assert again.peak_memory_mib > 1.5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts there in known units")
def test_peak_memory_is_in_mebibytes() -> None:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kibibytes, unit = lines["VmHWM"].split()
    assert unit == "kB"
    assert peak_memory_mib(CPU) == pytest.approx(int(kibibytes) / 1024, rel=0.05)


def test_shapes_of_another_folder_are_seen_and_asked_for_again(tiny_config: Config, go: Go) -> None:
    go.split = replace(go.split, shapes=())
    outcome = go.one_step(tiny_config, shapes=go.prepared)
    digest = joined_digest(go.prepared, go.prepared)
    assert outcome.data_digest == digest != go.prepared.digest
    assert checkpoint.load_segmentor(go.run.final).info["data_digest"] == digest
    with pytest.raises(CheckpointError, match="trained on other data"):
        go(codec.override(tiny_config, {"loss.adversarial": 0.0}), other_settings=True)


def test_other_settings_are_gone_on_with_on_request(tiny_config: Config, go: Go) -> None:
    go.one_step(tiny_config)
    other = codec.override(tiny_config, {"optim.lr": 1e-3})
    with pytest.raises(CheckpointError, match="the settings have changed"):
        go.one_step(other)
    assert go.one_step(other, other_settings=True).steps == 2


def test_one_of_several_workers_writes_nothing_unless_it_leads(tiny_config: Config, go: Go) -> None:
    class Second(Team):
        """Whose sums are of what it has itself."""

        shard = Shard(1, 2)

    twice = replace(
        go.prepared,
        raters=("a", "b"),
        scribbles=go.prepared.scribbles.repeat(2, axis=1),
        cases=tuple(replace(case, raters=("a", "b") if case.raters else ()) for case in go.prepared.cases),
    )
    config = codec.override(tiny_config, {"data.raters": "weighted", "optim.batch_size": 8, "optim.epochs": 1})
    first, second = Go(twice, go.split, go.run.path / "first"), Go(twice, go.split, go.run.path / "second")
    assert first(config).ending == second(config, team=Second()).ending == "done"
    written, begun = (sorted(path.name for path in each.run.path.iterdir()) for each in (first, second))
    assert begun == ["checkpoints", "config.json", "split.json"]
    assert not list((second.run.path / "checkpoints").iterdir())
    assert {*written} - {*begun} == {"metrics.jsonl", "raters.csv", "result.json", "tensorboard"}
    assert len(list((first.run.path / "checkpoints").iterdir())) == 3


def test_what_the_device_cannot_do_is_refused_before_anything_is_written(
    tiny_config: Config, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"train\.compile=true: on a CPU it needs a C\+\+ compiler"):
        go(codec.override(tiny_config, {"train.compile": True}))
    assert not go.run.tensorboard.exists()
