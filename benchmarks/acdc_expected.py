"""How well the Dice that a model expects of its own labels fits the real one, on real ACDC.

    python benchmarks/acdc_expected.py RUN [RUN ...] --data ACDC_DIR --out DIR [--part shapes]

Final weights, on the validation fold or on the 35 patients with unpaired masks, whose images no run saw. Where a run's
weights do not say how far they overrate themselves, that is found on its validation fold first, in a copy below DIR.
Writes table.md to DIR and a run's reports below it; what is measured already stays as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from compare import PLAIN, ROTATIONS_COMPONENT, measure, report_of

from maag.checkpoint import load_segmentor
from maag.data.cache import prepare
from maag.data.splits import Split
from maag.storage import read_json
from maag.train.folder import RunFolder
from maag.train.shortfalls import note_shortfalls

_WORST, _LOOKED_AT = 0.1, 0.2
"""Of the volumes: those with the least Dice, and as many as somebody may look at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("val", "shapes"), default="val")
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        copy = told(run, options.data, options.out)
        for refinement in (PLAIN, ROTATIONS_COMPONENT):
            measure(copy.path, options.data, options.part, (refinement,))
            report = json.loads(report_of(copy.path, "final", options.part, refinement).read_text())
            found = report["summary"]["agreement"]["expected_dice"]
            if not rows:
                rows = [f"| run, {options.part} | " + " | ".join(found) + " | the worst tenth in the first fifth |"]
                rows.append("| --- " * (2 + len(found)) + "|")
            cells = [cell(each) for each in found.values()]
            rows.append(f"| {run.name} {refinement.name} | " + " | ".join(cells) + f" | {ranked(report['cases'])} |")
    text = "\n".join(rows)
    (options.out / "table.md").write_text(f"{text}\n")
    print(text)


def told(run: Path, data: Path, out: Path) -> RunFolder:
    """A copy of what is measured of a run, whose weights say how far they overrate themselves."""
    source, copy = RunFolder(run), RunFolder(out / run.name)
    if copy.final.exists():
        return copy
    copy.final.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.split, copy.split)
    shutil.copy(source.final, copy.final)
    trained = load_segmentor(copy.final)
    if "shortfalls" not in trained.info:
        prepared = prepare(data, trained.config.data, out / "cache")
        split = Split.from_dict(read_json(copy.split), str(copy.split))
        note_shortfalls(copy.final, prepared, split.val, torch.device("cpu"))
    print(run.name, load_segmentor(copy.final).info["shortfalls"], flush=True)
    return copy


def cell(agreement: dict[str, float]) -> str:
    """Correlation, bias and mean absolute error."""
    return f"r {agreement['correlation']:.2f}, {agreement['bias']:+.3f}, {agreement['mae']:.3f}"


def ranked(cases: list[dict[str, Any]]) -> str:
    """How many of the worst volumes are among those that are looked at first."""
    pairs = []
    for case in cases:
        both = [(case["scores"][name]["dice"], dice) for name, dice in case["expected_dice"].items()]
        both = [(real, expected) for real, expected in both if real is not None]
        if both:
            pairs.append(tuple(sum(side) / len(both) for side in zip(*both, strict=True)))
    real, expected = (
        [place for place, _ in sorted(enumerate(pairs), key=lambda pair: pair[1][side])] for side in (0, 1)
    )
    worst, looked_at = real[: round(_WORST * len(pairs))], expected[: round(_LOOKED_AT * len(pairs))]
    return f"{len(set(worst) & set(looked_at))} of {len(worst)}"


if __name__ == "__main__":
    main()
