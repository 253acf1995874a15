"""Slices in a file and on the device."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from maag.data.slices.store import SliceStore

CPU = torch.device("cpu")


def test_slices_from_a_file_equal_those_on_the_device() -> None:
    array = np.random.default_rng(0).random((20, 3, 4)).astype(np.float32)
    indices = np.array([7, 3, 3, 19])
    from_file, resident = (SliceStore(array, CPU, resident=resident).gather(indices) for resident in (False, True))
    assert torch.equal(from_file, resident)
    assert torch.equal(resident, torch.from_numpy(array[indices]))


def test_slices_on_the_device_are_released_from_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "to", lambda values, *_, **__: values.clone())
    array = np.zeros((20, 3, 4), np.float32)
    store, reference = SliceStore(array, CPU, resident=True), weakref.ref(array)
    del array
    assert reference() is None
    assert store.gather(np.arange(2)).shape == (2, 3, 4)
