"""Progress of a search: a live table on a terminal, a line for each change of a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table

from maag.cli.terminal import console, say

if TYPE_CHECKING:
    from tune.results import TrialResult

_ROWS = 16  # trials in the live table: running ones, then the best


class SearchDisplay:
    """Shows the progress of trials."""

    def __init__(self, trials: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._trials = trials
        self._clock = clock
        self._started = clock()
        self._ended_before: int | None = None
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self._shown: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> SearchDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, results: Sequence[TrialResult]) -> None:
        """Show the state of all trials."""
        if self._ended_before is None:
            self._ended_before = _num_ended(results)  # a resumed search has trials that took none of this time
        if self._live:
            self._live.update(self._table(results))
            return
        for result in results:
            now = (result.status, result.epoch)
            if self._shown.get(result.trial) != now and result.status != "waiting":
                self._shown[result.trial] = now
                say(self._line(result, results))

    def _line(self, result: TrialResult, results: Sequence[TrialResult]) -> str:
        value = "" if result.objective is None else f"  Dice {result.objective:.4f}, best {result.best_dice:.4f}"
        why = f"  {result.error}" if result.error else ""
        head = f"trial {result.trial}  {result.status}  epoch {result.epoch}/{result.epochs}{value}{why}"
        return f"{head}  {_differing(result, results)}  {self._time_left(results)}"

    def _table(self, results: Sequence[TrialResult]) -> Table:
        table = Table(
            title=f"{_num_ended(results)} of {self._trials} trials  {self._time_left(results)}",
            title_justify="left",
            box=SIMPLE_HEAD,
        )
        for name in ("trial", "status", "epoch", "Dice", "best", "settings"):
            table.add_column(name, no_wrap=name != "settings")
        order = sorted(results, key=lambda result: (result.status != "running", -(result.objective or 0.0)))
        for result in order[:_ROWS]:
            dice = ["-" if value is None else f"{value:.4f}" for value in (result.objective, result.best_dice)]
            where = f"{result.epoch}/{result.epochs}"
            table.add_row(result.trial, result.status, where, *dice, result.error or _differing(result, results))
        return table

    def _time_left(self, results: Sequence[TrialResult]) -> str:
        ended = _num_ended(results)
        ended_here = ended - (self._ended_before or 0)
        if ended_here < 1:
            return ""
        seconds = (self._clock() - self._started) / ended_here * (self._trials - ended)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02} left"


def _num_ended(results: Sequence[TrialResult]) -> int:
    return sum(result.status in ("done", "stopped", "failed") for result in results)


def _differing(result: TrialResult, results: Sequence[TrialResult]) -> str:
    """The settings in which trials differ, abbreviated."""
    names = [name for name in result.sample if len({str(other.sample.get(name)) for other in results}) > 1]
    return " ".join(f"{name.split('.')[1]}={_short(result.sample[name])}" for name in names)


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value).replace(" ", "")
