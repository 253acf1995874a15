"""Cases that could not be done while others were: each told, then one sentence, and an exit code that says so."""

from __future__ import annotations

from collections.abc import Collection

from maag.errors import DataError, SomeCasesFailed


def end_with(problems: Collection[str], sentence: str, *, some_done: bool) -> None:
    """Say each problem, and end the command with `sentence` where there is any.

    Raises:
        SomeCasesFailed: the others are done.
        DataError: nothing is.
    """
    from maag.cli.terminal import say

    for problem in problems:
        say(f"Problem: {problem}")
    if problems:
        raise (SomeCasesFailed if some_done else DataError)(sentence)
