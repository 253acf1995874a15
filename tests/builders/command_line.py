"""The command line, run in this process."""

from __future__ import annotations

import pytest

from maag.cli.main import main


def run(*arguments: object) -> int:
    """Exit code of `maag ARGUMENTS`."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code
