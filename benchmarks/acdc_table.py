"""The full-size table on ACDC, and the learning curves, of the finished runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from acdc_jobs import ARMS, FOLDS, KINDS, PARTS, REFINEMENTS, TRACKS, Job
from compare import by_patient, compare, read_report
from matplotlib.figure import Figure
from runs import spread
from tables import markdown

from maag.inference import PLAIN
from maag.train.folder import RunFolder


def table(jobs: Sequence[Job], out: Path, part: str) -> str:
    """All arms of each track over their finished seeds, each compared with the first available arm.

    Arms that are finished on all folds of P70 also have a row for these together.
    """
    rows = [["track", "settings", "seeds", *(f"{title} ({kind})" for kind in KINDS for title in ("Dice", "HD95 mm")),
             "gain over the first, 95 % interval (final)", "better", "p",
             *(f"{each.name}: Dice / HD95 mm" for each in REFINEMENTS[1:]), "min/run"]]  # fmt: skip
    ready = [job for job in jobs if job.unseen([part]) and job.is_done(out, [part])]
    folds = FOLDS if part == "val" else ()
    groups = [*((track, [track]) for track in TRACKS), (f"{len(FOLDS)} folds of P70", folds)]
    for title, tracks in groups:
        done = {arm: [job for job in ready if job.track in tracks and job.arm == arm] for arm in ARMS}
        arms = [arm for arm in ARMS if tracks and {job.track for job in done[arm]} == set(tracks)]
        for arm in arms:
            seeds = ", ".join(map(str, sorted({job.seed for job in done[arm]})))
            rows.append([title, arm, seeds, *_cells(done[arm], done[arms[0]], out, part)])
    return f"Measured on {PARTS[part]}.\n\n{markdown(rows)}"


def _cells(done: Sequence[Job], baseline: Sequence[Job], out: Path, part: str) -> list[str]:
    def reports(some: Sequence[Job], kind: str, refinement: Any = PLAIN) -> list[dict[str, Any]]:
        found = [read_report(job.folder(out), kind, part, refinement) for job in some]
        return [report for report in found if report]

    def means(score: str, kind: str, refinement: Any = PLAIN) -> list[float]:
        return [report["summary"]["mean"][score] for report in reports(done, kind, refinement)]

    cells = [spread(means(score, kind), digits) for kind in KINDS for score, digits in (("dice", 3), ("hd95_mm", 1))]
    both = {(job.track, job.seed) for job in done} & {(job.track, job.seed) for job in baseline}
    if done[0].arm != baseline[0].arm and both:
        pair = [[job for job in some if (job.track, job.seed) in both] for some in (done, baseline)]
        found = compare(*(by_patient(reports(some, "final"), "dice") for some in pair))
        cells += [f"{found.gain:+.3f} ({found.low:+.3f} to {found.high:+.3f})"]
        cells += [f"{found.better} of {found.patients}", f"{found.p:.2g}"]
    else:
        cells += ["", "", ""]
    cells += [
        f"{fmean(means('dice', 'final', each)):.3f} / {fmean(means('hd95_mm', 'final', each)):.1f}"
        for each in REFINEMENTS[1:]
    ]
    minutes = [json.loads(RunFolder(job.folder(out)).result.read_text())["seconds"] / 60 for job in done]
    return [*cells, spread(minutes, 1)]


def draw(jobs: Sequence[Job], out: Path, picture: Path) -> None:
    """Validation Dice by epoch: the mean over classes, and that of the thinnest class, which degrades first."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, title in zip(figure.subplots(1, 2), ("mean", "MYO"), strict=True):
        for place, arm in enumerate(ARMS):
            for job in [job for job in jobs if job.arm == arm and (job.folder(out) / "metrics.jsonl").exists()]:
                lines = [json.loads(line) for line in (job.folder(out) / "metrics.jsonl").read_text().splitlines()]
                points = [(line["epoch"], line["mean_dice"] if title == "mean" else line["dice"][title])
                          for line in lines if "mean_dice" in line]  # fmt: skip
                axis.plot(
                    *zip(*points, strict=True), color=f"C{place}", label=arm if job.seed == jobs[0].seed else None
                )
        axis.set_xlabel("epoch")
        axis.set_ylabel(f"validation Dice, {title}")
        axis.set_ylim(bottom=0.6)
        axis.grid(alpha=0.3)
    if figure.axes[0].lines:
        figure.axes[0].legend()
    figure.savefig(picture, dpi=110)
