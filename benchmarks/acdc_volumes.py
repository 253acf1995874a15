"""Agreement of a run's volumes, ejection fractions and mass with the masks, on real ACDC.

    python benchmarks/acdc_volumes.py RUN [RUN ...] --data ACDC_DIR --out DIR [--part shapes]

Final weights, without refinement and with rotations and the largest component, on the validation fold or on the 35
patients with unpaired masks, whose images no run saw. Writes table.md to DIR and the reports of each run below it;
existing reports are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compare import PLAIN, ROTATIONS_COMPONENT, measure, or_dash, report_of, runs_to_measure

_MEASURES = {
    "LV_edv_ml": "LV EDV ml",
    "LV_esv_ml": "LV ESV ml",
    "LV_ef_percent": "LV EF %",
    "RV_edv_ml": "RV EDV ml",
    "RV_esv_ml": "RV ESV ml",
    "RV_ef_percent": "RV EF %",
    "myo_mass_g": "mass of the wall g",
}


def main() -> None:
    options = runs_to_measure(__doc__)
    rows = [f"| run, {options.part} | " + " | ".join(_MEASURES.values()) + " |", "| --- " * (1 + len(_MEASURES)) + "|"]
    for run in options.runs:
        for refinement in (PLAIN, ROTATIONS_COMPONENT):
            # Reports in the run's folder may come from a version that measured no volumes.
            beside = mirrored(run, options.out)
            measure(beside, options.data, options.part, (refinement,))
            report = json.loads(report_of(beside, "final", options.part, refinement).read_text())
            hearts = report["summary"]["agreement"]["heart"]
            name = f"{run.name} {refinement.name}".strip()
            rows.append(f"| {name} | " + " | ".join(cell(hearts[measure]) for measure in _MEASURES) + " |")
    text = "\n".join(rows)
    (options.out / "table.md").write_text(f"{text}\n")
    print(text)


def mirrored(run: Path, out: Path) -> Path:
    """A folder with links to a run's split and checkpoints, for new reports."""
    folder = out / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoints", "split.json"):
        if not (folder / name).exists():
            (folder / name).symlink_to((run / name).resolve())
    return folder


def cell(agreement: dict[str, Any]) -> str:
    """Bias, limits of agreement, mean absolute error and correlation."""
    limits = f"{or_dash(agreement['lower'], '+.0f')} to {or_dash(agreement['upper'], '+.0f')}"
    r = or_dash(agreement["correlation"], ".3f")
    return f"{agreement['bias']:+.1f} ({limits}), {agreement['mae']:.1f}, r {r}"


if __name__ == "__main__":
    main()
