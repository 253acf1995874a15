"""Training with compiled networks: the same trajectory, checkpoints and resumption as eager training."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.config.training import TrainConfig
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.losses import discriminator_loss
from maag.models.build import build_discriminator
from maag.models.discriminator import draw_noise, pyramid_of_masks
from maag.train.acceleration import accelerated
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.outcome import Outcome
from maag.train.reports import EpochReport, StepReport
from maag.train.state import TrainState
from maag.train.stopping import StopRequest

pytestmark = [
    pytest.mark.integration,
    # torch's compiler imports deprecated parts of torch.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
]

CPU = torch.device("cpu")
CHANGES = {
    "loss.adversarial_unlabelled": 0.2,
    "teacher.decay": 0.9,
    "teacher.confidence": 0.3,
    "loss.teacher": 1.0,
    "optim.lr": 1e-4,
    "optim.lr_discriminator": 1e-4,
}


class StopAt:
    """Keeps the losses of each reading, and asks to stop once `step` is reached."""

    def __init__(self, stop: StopRequest, step: int) -> None:
        self._stop, self._step = stop, step
        self.losses: dict[int, dict[str, float]] = {}

    def on_step(self, report: StepReport) -> None:
        self.losses[report.step] = report.losses
        if report.step >= self._step:
            self._stop.interrupt("test")

    def on_epoch(self, report: EpochReport) -> None:
        pass

    def on_checkpoint(self, step: int) -> None:
        pass


def train(
    config: Config, prepared: PreparedData, split: Split, path: Path, *, stop_at: int = 10**9
) -> tuple[Outcome, dict[int, dict[str, float]]]:
    resume = path.exists()
    run = RunFolder(path) if resume else create_run(path, config, split)
    stop = StopRequest()
    listener = StopAt(stop, stop_at)
    outcome = fit(config, prepared, split, run, device=CPU, listener=listener, stop=stop, resume=resume)
    return outcome, listener.losses


def parts(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.load_state(path / "checkpoints" / "last.pt", CPU)[1]["parts"]
    return found


def test_compiled_run_matches_the_eager_run_and_resumes_as_either(
    tiny_config: Config,
    prepared: PreparedData,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager = codec.override(tiny_config, CHANGES)
    compiled = codec.override(eager, {"train.compile": True})
    plain, expected = train(eager, prepared, split, tmp_path / "eager")
    # Everything but kernel compilation, which takes minutes on a CPU.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    whole, losses = train(compiled, prepared, split, tmp_path / "whole")
    assert losses.keys() == expected.keys()
    for step, found in losses.items():
        assert found == pytest.approx(expected[step], rel=1e-3)
    assert whole.final_dice == pytest.approx(plain.final_dice, abs=0.02)

    stopped, _ = train(compiled, prepared, split, tmp_path / "parts", stop_at=1)
    assert stopped.ending == "interrupted"
    shutil.copytree(tmp_path / "parts", tmp_path / "mixed")
    train(compiled, prepared, split, tmp_path / "parts")
    one, other = parts(tmp_path / "whole"), parts(tmp_path / "parts")
    assert_same(one, other)
    # The names are those of an eager run, which loads them and resumes.
    assert [list(part) for part in one.values()] == [list(part) for part in parts(tmp_path / "eager").values()]
    assert checkpoint.load_segmentor(tmp_path / "whole").config.train.compile
    assert train(eager, prepared, split, tmp_path / "mixed")[0].ending == "done"


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def test_compiled_discriminator_trains_like_the_eager_one(tiny_config: Config) -> None:
    """The network whose forward pass changes its own buffers; the segmentor's kernels would take minutes to make."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 4, (4, 32, 32), generator=generator, dtype=torch.uint8)
    pyramid = pyramid_of_masks(masks, 4, tiny_config.discriminator.scales)
    noise = draw_noise(pyramid[0].shape, generator)
    found: dict[bool, dict[str, Tensor]] = {}
    for compiled in (False, True):
        torch.manual_seed(0)
        discriminator = build_discriminator(tiny_config)
        forward = accelerated(discriminator, TrainConfig(compile=compiled), CPU)
        optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            scores = forward(pyramid, noise)
            discriminator_loss(scores[:2], scores[2:]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found[compiled] = {**discriminator.state_dict(), "scores": scores.detach()}
    assert found[True].keys() == found[False].keys()
    for name, tensor in found[True].items():
        torch.testing.assert_close(tensor, found[False][name], rtol=1e-3, atol=1e-5, msg=name)


def test_compiled_network_shares_the_weights(tiny_config: Config) -> None:
    state = TrainState(tiny_config, CPU)
    for precision in ("fp32", "bf16"):
        faster = codec.override(tiny_config, {"train.compile": True, "train.precision": precision})
        compiled = accelerated(state.segmentor, faster.train, CPU)
        assert {id(weight) for weight in compiled.parameters()} == {
            id(weight) for weight in state.segmentor.parameters()
        }
