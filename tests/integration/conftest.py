from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The parts that several journeys share lie beside them.
sys.path.insert(0, str(Path(__file__).parent))
# Ray makes its workers yield to everything else, and the other process of tests would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_command_left() -> Iterator[None]:
    yield
    from journeys import Command

    while Command.unended:
        Command.unended[0].abandon()
