"""How well a model's expected Dice predicts the real one, on real ACDC.

    python benchmarks/acdc_expected.py RUN [RUN ...] --data ACDC_DIR --out DIR [--part shapes]

Final weights, on the validation fold or on the 35 patients with unpaired masks, whose images no run saw. Weights
without shortfalls are calibrated on the validation fold first, in a copy below DIR. Then the first run segments the
same volumes with corruptions that it was not trained for. Writes table.md to DIR and the reports of each run below it;
existing reports are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from compare import PLAIN, ROTATIONS_COMPONENT, measure, or_dash, report_of, runs_to_measure
from scipy.ndimage import gaussian_filter

from maag.checkpoint import load_segmentor
from maag.data.cache.preparing import prepare
from maag.data.catalog import find_cases, reader_of
from maag.data.files.volume import Volume
from maag.data.splits import Split
from maag.evaluate.agreement import Agreement, Pair
from maag.evaluate.measure import Labels, runner_predictor
from maag.inference import TorchRunner
from maag.storage import read_json
from maag.train.folder import RunFolder
from maag.train.shortfalls import note_shortfalls

_WORST, _LOOKED_AT = 0.1, 0.2
"""Fractions of the volumes: those with the lowest real Dice, and those that a reader may review."""


def main() -> None:
    options = runs_to_measure(__doc__)
    rows = []
    for run in options.runs:
        copy = calibrated(run, options.data, options.out)
        for refinement in (PLAIN, ROTATIONS_COMPONENT):
            measure(copy.path, options.data, options.part, (refinement,))
            report = json.loads(report_of(copy.path, "final", options.part, refinement).read_text())
            found = report["summary"]["agreement"]["expected_dice"]
            if not rows:
                rows = [f"| run, {options.part} | " + " | ".join(found) + " | the worst tenth in the first fifth |"]
                rows.append("| --- " * (2 + len(found)) + "|")
            cells = [cell(each) for each in found.values()]
            rows.append(f"| {run.name} {refinement.name} | " + " | ".join(cells) + f" | {ranked(report['cases'])} |")
    rows += ["", "| volumes | labelled | real | expected | r |", "| --- | --- | --- | --- | --- |"]
    rows += [harmed_row(name, calibrated(options.runs[0], options.data, options.out), options) for name in HARMS]
    text = "\n".join(rows)
    (options.out / "table.md").write_text(f"{text}\n")
    print(text)


def turned(volume: Volume) -> Volume:
    """Rotated by 90 degrees, as an image with exchanged axes."""
    depth, height, width = volume.spacing_mm
    voxels = np.ascontiguousarray(np.rot90(volume.voxels, axes=(-2, -1)))
    return replace(volume, voxels=voxels, spacing_mm=(depth, width, height))


def mirrored(volume: Volume) -> Volume:
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels[..., ::-1]))


def noisy(volume: Volume) -> Volume:
    """With Gaussian noise whose standard deviation is .15 of the 99th percentile of intensities."""
    strength = 0.15 * np.percentile(volume.voxels, 99)
    noise = np.random.default_rng(0).normal(0, strength, volume.voxels.shape)
    return replace(volume, voxels=(volume.voxels + noise).astype(np.float32))


def blurred(volume: Volume) -> Volume:
    """Blurred by a Gaussian with a standard deviation of two pixels."""
    return replace(volume, voxels=gaussian_filter(volume.voxels, (0, 0, 2, 2)).astype(np.float32))


HARMS: Mapping[str, tuple[Callable[[Volume], Volume], Callable[[Labels], Labels]]] = {
    "as they are": (lambda volume: volume, lambda labels: labels),
    "turned by 90°": (turned, lambda labels: np.rot90(labels, axes=(-2, -1))),
    "mirrored": (mirrored, lambda labels: labels[..., ::-1]),
    "noise": (noisy, lambda labels: labels),
    "blurred": (blurred, lambda labels: labels),
}
"""Corruptions of images, and the corresponding transforms of their masks."""


def harmed_row(name: str, run: RunFolder, options: argparse.Namespace) -> str:
    harm_image, harm_mask = HARMS[name]
    trained = load_segmentor(run.final)
    data, reader = trained.config.data, reader_of("acdc")
    patients = getattr(Split.from_dict(read_json(run.split), str(run.split)), options.part)
    look = runner_predictor(TorchRunner(trained.segmentor), data, shortfalls=trained.info["shortfalls"])
    cases = [case for case in find_cases(replace(data, cine=False), options.data) if case.patient_id in patients]
    pairs = []
    for case in cases:
        found = look(case, harm_image(reader.load_volume(case)))
        mask = np.array(harm_mask(reader.load_mask(case, data).labels))
        if found.expected_dice:
            real = [dice_of(found.labels, mask, data.classes.index(each)) for each in found.expected_dice]
            pairs.append(Pair(reference=fmean(real), predicted=fmean(found.expected_dice.values())))
    if not pairs:
        return f"| {name} | 0 of {len(cases)} | | | |"
    found = Agreement.of(pairs)
    expected = found.reference_mean + found.bias
    cells = (name, f"{len(pairs)} of {len(cases)}", f"{found.reference_mean:.3f}", f"{expected:.3f}")
    return f"| {' | '.join(cells)} | {or_dash(found.correlation, '.2f')} |"


def dice_of(labels: Labels, mask: Labels, value: int) -> float:
    ours, real = labels == value, mask == value
    return 2 * float((ours & real).sum()) / float(ours.sum() + real.sum())


def calibrated(run: Path, data: Path, out: Path) -> RunFolder:
    """A copy of a run's split and final weights, with shortfalls."""
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


def cell(agreement: dict[str, Any]) -> str:
    """Correlation, bias and mean absolute error."""
    return f"r {or_dash(agreement['correlation'], '.2f')}, {agreement['bias']:+.3f}, {agreement['mae']:.3f}"


def ranked(cases: list[dict[str, Any]]) -> str:
    """How many of the worst volumes are among those with the lowest expected Dice."""
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
