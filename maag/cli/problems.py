"""Cases that could not be done while others were: each told, then one sentence, and an exit code that says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from maag.errors import DataError, SomeCasesFailed

_NAMED_AT_MOST = 10


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


def names_of(failed: Mapping[str, str]) -> str:
    """The names of cases, by which their problems are found: not more than ten, and how many there are else."""
    more = f" and {len(failed) - _NAMED_AT_MOST} more" if len(failed) > _NAMED_AT_MOST else ""
    return ", ".join([*failed][:_NAMED_AT_MOST]) + more
