"""Sums that workers exchange."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributed

from maag.train.team import TorchTeam


def test_summed_tensors_are_contiguous_as_nccl_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(values: Tensor) -> None:
        assert values.is_contiguous()
        values *= 2

    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    moved = torch.arange(24).view(2, 3, 4).movedim(-1, 0)  # as the confusions of several offsets are
    assert torch.equal(TorchTeam(torch.device("cpu")).sum(moved), 2 * moved)
