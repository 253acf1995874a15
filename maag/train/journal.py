"""The run's own record: `metrics.jsonl` and TensorBoard curves."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext, suppress
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from maag.errors import StorageError
from maag.storage import storage_errors, write_text
from maag.train.folder import RunFolder
from maag.train.reports import EpochReport, StepReport


class Journal:
    """A listener that records every epoch.

    Args:
        run: the run folder.
        step: updates done so far; lines and curves of later steps, which will be repeated, are dropped.

    Raises StorageError.
    """

    def __init__(self, run: RunFolder, step: int) -> None:
        self._path = run.metrics
        self._keep_up_to(step)
        with storage_errors(self._path):
            self._lines = self._path.open("a", encoding="utf-8")
            self._curves = SummaryWriter(str(run.tensorboard), purge_step=step + 1)
            self._curves.flush()  # else a background thread would write later, and its error would be lost

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On a full disk, closing fails again; that error must not hide the first one.
        quiet = nullcontext() if error is None else suppress(StorageError)
        with quiet, storage_errors(self._path), closing(self._curves):
            self._lines.close()

    def on_step(self, report: StepReport) -> None:
        """Nothing: the record is by epoch."""

    def on_epoch(self, report: EpochReport) -> None:
        """Append one line, and one point to each curve."""
        with storage_errors(self._path):
            self._lines.write(json.dumps(report.to_dict(), allow_nan=False) + "\n")
            self._lines.flush()
            for name, value in report.losses.items():
                self._curves.add_scalar(f"loss/{name}", value, report.step)
            self._curves.add_scalar("lr", report.lr, report.step)
            self._curves.add_scalar("steps_per_second", report.steps_per_second, report.step)
            if report.validation is not None:
                self._curves.add_scalar("dice/mean", report.validation.mean, report.step)
                for name, value in report.validation.per_class.items():
                    self._curves.add_scalar(f"dice/{name}", value, report.step)
            self._curves.flush()

    def on_checkpoint(self, step: int) -> None:
        """Nothing: a checkpoint is its own record."""

    def _keep_up_to(self, step: int) -> None:
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line cut short by a crash does not end with a newline.
            whole = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(self._path, "".join(whole))
