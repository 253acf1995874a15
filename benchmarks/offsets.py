"""The gain of class offsets on patients they were not fitted to, by the number of validation patients.

    python benchmarks/offsets.py RUN [RUN ...] --data ACDC_DIR --out DIR

Loads the final weights of finished runs on real ACDC, and removes the offsets of those trained with
`train.class_offsets`. Then, on the training grid, measures the gain of offsets fitted to some of the validation
patients on the 35 patients with unpaired masks, whose images no run saw; and at source resolution, with and without
refinements, compares offsets fitted to all validation patients with none. Writes table.md to DIR, and weights with and
without offsets.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from compare import (
    COMPONENT,
    PLAIN,
    ROTATIONS,
    ROTATIONS_COMPONENT,
    by_patient,
    compare,
    measure,
    read_report,
)
from torch import Tensor

from maag import checkpoint
from maag.checkpoint import TrainedSegmentor
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import default_cache_root, prepare
from maag.data.splits import Split
from maag.models.segmentor import Segmentor
from maag.storage import read_json
from maag.train.offsets import (
    LIMIT,
    PixelScores,
    best_offsets,
    concatenated,
    dice_of_cases,
    gain_lower_bound,
    pixel_scores,
    with_offsets,
)

_SUBSETS = 40
_REFINEMENTS = (PLAIN, COMPONENT, ROTATIONS, ROTATIONS_COMPONENT)


@dataclass(frozen=True)
class Cases:
    """A segmentor's scores of some patients' cases."""

    scores: PixelScores
    patients: tuple[str, ...]
    """Of each case."""

    def dice(self, offsets: Tensor) -> Tensor:
        """(num_cases, num_classes - 1)."""
        return dice_of_cases(self.scores.confusion(offsets))

    def fitted(self, some: Sequence[str]) -> Tensor:
        chosen = torch.tensor([patient in some for patient in self.patients])
        num_classes = self.scores.settled.shape[-1]
        before = self.dice(torch.zeros(num_classes))[chosen]
        numbers = torch.from_numpy(np.unique(self.patients, return_inverse=True)[1])[chosen]
        return best_offsets(
            num_classes,
            lambda rows: gain_lower_bound(
                torch.stack([self.dice(row)[chosen] for row in rows]), before, numbers
            ).tolist(),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for run in options.runs:
        split = Split.from_dict(read_json(run / "split.json"), str(run))
        trained = checkpoint.load_segmentor(run / "checkpoints" / checkpoint.FINAL)
        prepared = prepare(options.data, trained.config.data, default_cache_root())
        segmentor = without_offsets(trained)
        val, others = (look(segmentor, prepared, patients) for patients in (split.val, split.shapes))
        lines += [f"{run.name}: by patients that they are fitted on\n", *by_number(val, others, split.val)]
        offsets = val.fitted(split.val)
        lines += [f"\nsource resolution, fitted on all {len(split.val)}: {rounded(offsets)}\n"]
        lines += [*at_source(trained, segmentor, offsets, run, options)]
    text = "\n".join([*lines, ""])
    (options.out / "table.md").write_text(text)
    print(text)


def without_offsets(trained: TrainedSegmentor) -> Segmentor:
    offsets = [-value for value in trained.info.get("class_offsets", ())]
    trained.segmentor.load_state_dict(with_offsets(trained.segmentor.state_dict(), offsets))
    return trained.segmentor


def look(segmentor: Segmentor, prepared: PreparedData, patients: Sequence[str]) -> Cases:
    cases = [case for case in prepared.cases if case.patient_id in patients and case.has_mask]
    parts = []
    with torch.inference_mode():
        for number, case in enumerate(cases):
            images, masks = (np.array(array[case.start : case.stop]) for array in (prepared.images, prepared.masks))
            logits = segmentor(torch.from_numpy(images)).logits
            numbers = torch.full((len(images),), number)
            parts.append(pixel_scores(logits, torch.from_numpy(masks), numbers, len(cases), LIMIT))
    return Cases(concatenated(parts), tuple(case.patient_id for case in cases))


def by_number(val: Cases, others: Cases, patients: Sequence[str]) -> list[str]:
    """The gain on `others` by the number of validation patients, over random subsets."""
    draw = np.random.default_rng(0)
    none = torch.zeros(val.scores.settled.shape[-1])
    plain = mean_dice(others, none)
    lines = ["| fitted on | mean gain | least | largest | offsets, mean |", "| --- | --- | --- | --- | --- |"]
    for number in sorted({1, 2, 3, 5, 8, len(patients)}):
        subsets = [draw.permutation(patients)[:number].tolist() for _ in range(_SUBSETS)]
        found = [val.fitted(subset) for subset in (subsets if number < len(patients) else subsets[:1])]
        gains = [mean_dice(others, offsets) - plain for offsets in found]
        cells = [str(number), *(f"{value:+.4f}" for value in (fmean(gains), min(gains), max(gains)))]
        lines.append(f"| {' | '.join([*cells, rounded(torch.stack(found).mean(dim=0))])} |")
    own = others.fitted(sorted(set(others.patients)))
    return [*lines, f"| the others themselves | {mean_dice(others, own) - plain:+.4f} | | | {rounded(own)} |"]


def mean_dice(cases: Cases, offsets: Tensor) -> float:
    return float(cases.dice(offsets).nanmean(dim=0).mean())


def rounded(offsets: Tensor) -> str:
    return ", ".join(f"{value:.2f}" for value in offsets.tolist())


def at_source(
    trained: TrainedSegmentor, segmentor: Segmentor, offsets: Tensor, run: Path, options: argparse.Namespace
) -> list[str]:
    """Evaluate with and without offsets, and compare patient by patient."""
    folders = {}
    for name, values in (("without", torch.zeros_like(offsets)), ("with", offsets)):
        folder = folders[name] = options.out / f"{run.name}-{name}"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        shutil.copy(run / "split.json", folder)
        weights = with_offsets(segmentor.state_dict(), values.tolist())
        checkpoint.save_segmentor(folder / "checkpoints" / checkpoint.FINAL, trained.config, weights, trained.info)
    titles = ["patients", "refinement", "without: Dice / HD95 mm", "with", "gain, 95 % interval", "better", "p"]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for part in ("val", "shapes"):
        for folder in folders.values():
            measure(folder, options.data, part, _REFINEMENTS)
        for refinement in _REFINEMENTS:
            reports = [read_report(folder, "final", part, refinement) for folder in folders.values()]
            before, after = (report for report in reports if report)
            found = compare(by_patient([after], "dice"), by_patient([before], "dice"))
            means = [report["summary"]["mean"] for report in (before, after)]
            scores = [f"{mean['dice']:.4f} / {mean['hd95_mm']:.1f}" for mean in means]
            cells = [part, refinement.name or "none", *scores,
                     f"{found.gain:+.4f} ({found.low:+.4f} to {found.high:+.4f})",
                     f"{found.better} of {found.patients}", f"{found.p:.2g}"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
