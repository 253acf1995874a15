"""Output of commands: a live line on a terminal, plain lines elsewhere, one JSON line on request.

Everything for people goes to standard error, so that standard output stays clean for `--json`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live as LiveDisplay
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from maag.config.schema import Config
    from maag.data.splits import Split
    from maag.train.outcome import Outcome
    from maag.train.reports import EpochReport, StepReport

_PLAIN_WIDTH = 120  # without a terminal

console = Console(stderr=True, highlight=False, markup=False)
if not console.is_terminal:
    console.width = _PLAIN_WIDTH


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object on one line of standard output."""
    click.echo(json.dumps(value, allow_nan=False))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> None:
    """Print a table for people; columns after the first are right-aligned if they are numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, name in enumerate(header):
        table.add_column(name, justify="right" if numbers and column else "left", no_wrap=column == 0)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def say(text: str) -> None:
    """Print a line for people."""
    console.print(Text(text), soft_wrap=True)


def pluralized(number: int, noun: str) -> str:
    """`1 volume`, `2 volumes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shell_command(command: str, *words: object) -> str:
    """A command that can be pasted into a shell, its arguments quoted where needed."""
    return f"maag {command} {shlex.join(map(str, words))}"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, one final line elsewhere; call it with (done, total)."""
    if not console.is_terminal:
        last = [0, 0]

        def remember(done: int, total: int) -> None:
            last[:] = [done, total]

        started = time.monotonic()
        yield remember
        if last[1]:
            say(f"{what}: {last[0]} of {last[1]} in {time.monotonic() - started:.1f} s")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def preparing() -> Any:
    """Progress of reading a data set into its cache; shows nothing if it is cached already."""
    return progress_bar("Preparing volumes")


class TrainingDisplay:
    """Shows a training run: one live line, and a line for each validation."""

    def __init__(self, run: Path, config: Config, split: Split, config_digest: str, place: str) -> None:
        say(f"Run {run} (config {config_digest}, split {split.scheme} {split.digest}, {place})")
        shapes = f", {len(split.shapes)} with masks for the discriminator" if config.adversarial else ""
        training = [
            f"{len(members)} {role}"
            for members, role in (
                (split.scribbled, "for training with scribbles"),
                (split.dense, "for training with masks"),
                (split.unlabelled, "unlabelled"),
            )
            if members
        ]
        say(
            f"Patients: {', '.join(training)}{shapes}, "
            f"{len(split.val)} for validation, {len(split.test)} held out for testing"
        )
        self._live = LiveDisplay(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._dice = ""

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_soft_labels(self, done: int, total: int) -> None:
        """Update the live line, or print one when the teachers have predicted all cases."""
        if self._live:
            self._live.update(Text(f"soft labels of the teachers: {done} of {total} cases"))
        elif done == total:
            say(f"The teachers predicted soft labels of {total} cases")

    def on_step(self, report: StepReport) -> None:
        """Update the live line."""
        if self._live:
            losses = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
            self._live.update(
                Text(
                    f"epoch {report.epoch}/{report.epochs}  {report.steps_per_second:.2f} steps/s  {losses}  "
                    f"{self._dice}lr {report.lr:.1e}  {_duration(report.seconds_left)} left"
                )
            )

    def on_epoch(self, report: EpochReport) -> None:
        """Print a line if the epoch was validated."""
        if report.validation is None:
            return
        self._dice = f"val Dice {report.validation.mean:.3f}  "
        classes = "  ".join(f"{name} {value:.3f}" for name, value in report.validation.per_class.items())
        losses = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
        left = report.seconds / report.epoch * (report.epochs - report.epoch)
        star = "*" if report.is_best else " "
        say(
            f"epoch {report.epoch}/{report.epochs}  val Dice {report.validation.mean:.4f} {star}"
            f"  {classes}  {losses}  {report.steps_per_second:.2f} steps/s  {_duration(left)} left"
        )

    def on_checkpoint(self, step: int) -> None:
        """Do nothing: checkpoints are frequent, and shown at the end."""

    def show_outcome(self, outcome: Outcome) -> None:
        """Say how the run ended and what to do next."""
        if outcome.ending == "interrupted":
            again = shell_command("train …", "--out", outcome.run, "--resume")
            say(f"Stopped at step {outcome.steps} and saved; continue with: {again}")
            return
        reason = {"done": "Done", "early": "Stopped early without improvement", "time": "Time limit reached"}[
            outcome.ending
        ]
        best = (
            "" if outcome.best_dice is None else f"best val Dice {outcome.best_dice:.4f} (epoch {outcome.best_epoch}), "
        )
        say(
            f"{reason} after {outcome.epochs_done:.1f} epochs in {_duration(outcome.seconds)}: {best}"
            f"final val Dice {outcome.final_dice:.4f}"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
