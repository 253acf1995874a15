"""The command line, run in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maag.cli.main import main


def run(*arguments: object) -> int:
    """Exit code of `maag ARGUMENTS`."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


class Maag:
    """Runs commands in this process, as a process for each would spend most of its time on importing torch."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""
        """What the last command wrote to standard error."""

    def __call__(self, *words: object, code: int = 0) -> Any:
        """The last JSON object printed if `--json` is among the words, else the text of standard error."""
        self._capsys.readouterr()
        found = run(*words)
        printed = self._capsys.readouterr()
        self.text = printed.err
        assert found == code, self.text
        return json.loads(printed.out.splitlines()[-1]) if "--json" in words else self.text
