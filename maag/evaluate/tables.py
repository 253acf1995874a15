"""Tables of a report, for the terminal and the HTML page."""

from __future__ import annotations

from maag.evaluate.report import Report
from maag.metrics import PRESENCES, SCORES


def table(report: Report) -> list[list[str]]:
    """The summary as rows of cells: a header, the means of each class, and the mean over classes."""
    rows = [["class", "Dice", "± std", "IoU", "HD mm", "HD95 mm", "ASSD mm", "missed", "invented", "absent"]]
    counts = report.counts()
    for name, spreads in report.per_class().items():
        dice, *others = (spreads[score] for score in SCORES)
        cells = [_cell(dice.mean), _cell(dice.std), *(_cell(spread.mean) for spread in others)]
        rows.append([name, *cells, *(str(counts[name][presence]) for presence in PRESENCES if presence != "both")])
    dice_mean, *other_means = (_cell(report.mean(score)) for score in SCORES)
    rows.append(["mean", dice_mean, "", *other_means, "", "", ""])
    return rows


def agreement_table(report: Report) -> list[list[str]]:
    """The agreement of volumes, measures of the heart and the expected Dice: a header, and a row for each quantity."""
    rows = [["", "n", "mask", "bias", "limits of agreement", "MAE", "r"]]
    for kind, found in report.agreement().items():
        for name, each in found.items():
            digits = 3 if kind == "expected_dice" else 1
            low, high = (None if limit is None else f"{limit:+.{digits}f}" for limit in (each.lower, each.upper))
            limits = f"{low} to {high}" if low and high else "-"
            label = name if kind == "heart" else f"{name} {kind}"
            cells = [f"{each.reference_mean:.{digits}f}", f"{each.bias:+.{digits}f}", limits, f"{each.mae:.{digits}f}"]
            rows.append([label.replace("_", " "), str(each.n), *cells, _cell(each.correlation)])
    return rows


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
