"""Report of cases that failed while others did not: one line each, a summary, and the exit code."""

from __future__ import annotations

from collections.abc import Collection

from maag.errors import DataError, SomeCasesFailed


def end_with(problems: Collection[str], sentence: str, *, some_done: bool) -> None:
    """Print each problem, and end the command with `sentence` if there is any.

    Raises:
        SomeCasesFailed: the other cases are done.
        DataError: no case is done.
    """
    from maag.cli.terminal import say

    for problem in problems:
        say(f"Problem: {problem}")
    if problems:
        raise (SomeCasesFailed if some_done else DataError)(sentence)
