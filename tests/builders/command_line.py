"""What a user types, and the exit code that comes back."""

from __future__ import annotations

import pytest

from maag.cli.main import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert isinstance(caught.value.code, int)
    return caught.value.code
