"""The losses of the first steps match the stored ones; `pytest --update-golden` rewrites them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.batches import Batch
from maag.labels import IGNORE
from maag.train.state import TrainState
from maag.train.step import update

GOLDEN = Path(__file__).parents[2] / "golden" / "losses_cpu.json"
TOLERANCES = (1e-4, 1e-4, 1e-4, 1e-4, 1e-3)
"""Relative, by step. Processors round convolutions differently, and each step amplifies that about tenfold:
1e-7, 3e-6, 2e-6, 2e-5 and 1.4e-4 between two kinds."""
MAAG = {
    "loss.adversarial": 0.1,
    "loss.adversarial_unlabelled": 0.2,
    "loss.dynamic_balance": True,
    "loss.class_weights": 1.0,
    "gates.levels": [0, 1, 2, 3],
    "gates.conditioned": True,
    "discriminator.instance_noise": 0.2,
    "discriminator.label_noise": 0.1,
    "train.seed": 1234,
}


def random_batch(generator: torch.Generator) -> Batch:
    labels = torch.randint(0, 4, (4, 32, 32), generator=generator, dtype=torch.uint8)
    labels[torch.rand(4, 32, 32, generator=generator) > 0.1] = IGNORE
    masks = torch.randint(0, 4, (4, 4, 4), generator=generator, dtype=torch.uint8)
    return Batch(
        images=torch.randn(4, 1, 32, 32, generator=generator),
        labels=labels,
        unlabelled=torch.randn(4, 1, 32, 32, generator=generator),
        masks=masks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2),
    )


def losses_of_first_steps(config: Config) -> list[dict[str, float]]:
    state = TrainState(config, torch.device("cpu"))
    state.set_rates(1e-3, 1e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(5):
        state.noise.manual_seed(step)
        found = update(state, random_batch(generator), config)
        losses.append({name: float(loss) for name, loss in found.items()})
    return losses


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As many threads as when the losses were stored: another number changes the order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_losses_of_the_first_steps_match_the_golden_file(
    tiny_config: Config, request: pytest.FixtureRequest
) -> None:
    losses = losses_of_first_steps(codec.override(tiny_config, MAAG))
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps({"torch": torch.__version__, "losses": losses}, indent=2) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert len(losses) == len(golden["losses"])
    for found, expected, rel in zip(losses, golden["losses"], TOLERANCES, strict=True):
        assert found == pytest.approx(expected, rel=rel), f"stored with torch {golden['torch']}"
