"""The report of an evaluation as a self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from maag.evaluate.agreement import Pair
from maag.evaluate.plots import agreement_svg, scores_svg, slice_png
from maag.evaluate.report import Report
from maag.evaluate.tables import agreement_table, table
from maag.evaluate.worst import ShownSlice
from maag.labels import colour_of
from maag.storage import write_text

PAGE = "report.html"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
svg, img { max-width: 100%; height: auto; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; }
p { margin: .2rem 0; }
figcaption, .note { color: #555; font-size: 13px; }
details > table { font-size: 13px; }
"""


def write_page(out: Path, report: Report, shown: Sequence[ShownSlice] = ()) -> None:
    """Write `report.html` to the folder `out`: tables, plots with a point for each case, and the slices `shown`.

    Raises StorageError.
    """
    write_text(out / PAGE, page(report, shown))


def page(report: Report, shown: Sequence[ShownSlice] = ()) -> str:
    """The HTML of the page."""
    subject = report.subject
    title = f"{subject.model}{f', {subject.refinement}' if subject.refinement else ''}"
    facts = {
        "data set": subject.dataset,
        "split": subject.split,
        "patients": str(len({case.patient_id for case in report.cases})),
        "cases": str(len(report.cases)),
        "without a mask, left out": str(len(report.without_mask) or ""),
        "could not be measured, left out": ", ".join(report.failed),
        "checkpoint": subject.checkpoint_kind,
        "runtime": subject.runner,
        "model digest": subject.model_digest,
        "split digest": subject.split_digest,
    }
    header, *rows = table(report)
    case_header, *case_rows = _case_rows(report)
    parts = [
        _heading(1, title),
        "".join(f"<p>{name}: {_text(value)}</p>" for name, value in facts.items() if value),
        _heading(2, "Classes"),
        _table(header, rows),
        _note(
            "Means over cases. A class that is in neither mask nor prediction is left out and counted as absent; a "
            "class in only one of them has Dice and IoU 0 and no distances, and is counted as missed or invented."
        ),
        scores_svg(report),
        *_agreement(report),
        *_slices(shown, report.classes),
        _heading(2, "All cases, worst first"),
        f"<details><summary>Show all cases</summary>{_table(case_header, case_rows)}</details>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n"
        "</html>\n"
    )


def _agreement(report: Report) -> Iterable[str]:
    header, *rows = agreement_table(report)
    if not rows:
        return
    yield _heading(2, "Agreement with the masks")
    yield _table(header, rows)
    yield _note(
        "Bias is the mean of predicted - mask; the limits of agreement are 1.96 standard deviations to either side of "
        "it (Bland and Altman); r is Pearson's correlation. Volumes are over cases; measures of the heart are over "
        "hearts with masks of two frames, such as X_frame01 and X_frame12, of which the masks determine end-diastole. "
        "Expected Dice is the model's own estimate without the mask, for classes that it labelled."
    )
    pairs = {
        **_by_quantity(report.volume_pairs(), " volume ml"),
        **_by_quantity(report.heart_pairs(), ""),
        **_by_quantity(report.expected_pairs(), " expected dice"),
    }
    if drawn := agreement_svg(pairs):
        yield drawn


def _by_quantity(pairs: Mapping[str, Mapping[str, Pair]], kind: str) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for quantities in pairs.values():
        for name, pair in quantities.items():
            found.setdefault(f"{name}{kind}".replace("_", " "), []).append(pair)
    return found


def _slices(shown: Sequence[ShownSlice], classes: Sequence[str]) -> Iterable[str]:
    if not shown:
        return
    yield _heading(2, "Worst cases")
    names = ", ".join(
        f'<span style="color:rgb{colour_of(value)}">&#9632;</span> {_text(name)}'
        for value, name in enumerate(classes, start=1)
    )
    yield f'<p class="note">The slice with the most wrong pixels: mask solid, prediction dashed. {names}</p>'
    for each in shown:
        dice = "" if each.case.mean_dice is None else f", Dice {each.case.mean_dice:.3f}"
        caption = _text(f"{each.case.case_id}, slice {each.number}{dice}")
        yield f'<figure><img alt="{caption}" src="{slice_png(each)}"><figcaption>{caption}</figcaption></figure>'


def _case_rows(report: Report) -> list[list[str]]:
    header = ["case", "mean Dice", *(f"{name} Dice" for name in report.classes)]
    rows = [[*header, *(f"{name} HD95 mm" for name in report.classes)]]
    for case in sorted(report.cases, key=lambda case: 1.0 if case.mean_dice is None else case.mean_dice):
        scores = [case.scores[name] for name in report.classes]
        values = [case.mean_dice, *(each.dice for each in scores)]
        distances = [each.hd95_mm for each in scores]
        rows.append([case.case_id, *(_number(value, 3) for value in values), *(_number(mm, 1) for mm in distances)])
    return rows


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _heading(level: int, text: str) -> str:
    return f"<h{level}>{_text(text)}</h{level}>"


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(text: str) -> str:
    """Escape for HTML; file names may contain bytes that are not valid text."""
    return escape(os.fsencode(text).decode(errors="replace"))
