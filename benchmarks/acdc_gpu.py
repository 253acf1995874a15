"""The full-size table on ACDC, on one big GPU, in calls of a few minutes each: no network, no Ray.

    python benchmarks/acdc_gpu.py --data ACDC_DIR --out DIR [--minutes 9] [--seeds 1 2 3] [--tracks P35 P70] [--compile]

Call it again with the same words until it says that nothing is left: each call goes on where the last one stopped, and
prints the table of what is done so far. A run that is stopped resumes exactly. `--data` is the challenge's folder;
prepared data are kept in DIR/cache, and with `--cache DIR` from elsewhere.

P35: the paper's fold, 35 patients with scribbles, 35 others whose masks the discriminator sees. P70: scribbles of all
70; the same 35 give masks, but never paired with their images. Both validate on the paper's 15 patients and, where its
15 test patients are there, are measured on them; else on the validation fold, and the table says so. With
`--parts val shapes` the runs of P35 are also measured on the 35 patients whose images they did not see.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from acdc_best import ANOTHER_SEED, WITHOUT_SHAPES, WITHOUT_TEACHER, markdown
from compare import COMPONENT, ROTATIONS, ROTATIONS_COMPONENT, by_patient, compare, measure, read_report
from matplotlib.figure import Figure
from runs import spread

from maag.cli.options import pick_device
from maag.config.codec import override
from maag.config.presets import TAUGHT
from maag.config.schema import Config
from maag.data.acdc import SPLIT0
from maag.data.cache import prepare
from maag.data.catalog import preset
from maag.data.prepared import PreparedData
from maag.data.splits import Split
from maag.inference import PLAIN
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.reports import EpochReport, Live
from maag.train.second_stage.teachers import open_teachers
from maag.train.stopping import StopRequest

TRACKS = ("P35", "P70")
DENSE = {"data.supervision": "dense", "loss.adversarial": 0, "loss.adversarial_unlabelled": 0}
PARTIAL = {**WITHOUT_SHAPES, **WITHOUT_TEACHER, "loss.adversarial_unlabelled": 0}
ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "paper": ("paper", {}),
    "best": ("best", {}),
    "best, taught by a first run": ("best", TAUGHT),
    "best, without gates and discriminator": ("best", {**WITHOUT_SHAPES, "loss.adversarial_unlabelled": 0}),
    "partial cross-entropy, best's recipe": ("best", PARTIAL),
    "dense masks, best's recipe (bound)": ("best", DENSE),
}
TAUGHT_BY: Mapping[str, str] = {"best, taught by a first run": "best"}
"""By arm the one whose final model of the same seed teaches."""
PARTS: Mapping[str, str] = {
    "test": "the paper's test fold",
    "val": "the validation fold",
    "shapes": "the 35 patients whose masks alone were seen",
}
KINDS = ("final", "best")
REFINEMENTS = (PLAIN, COMPONENT, ROTATIONS, ROTATIONS_COMPONENT)
_SECONDS_TO_MEASURE = 45.0
"""Of a call, left to measure what was trained last."""


@dataclass(frozen=True, slots=True)
class Job:
    track: str
    arm: str
    seed: int

    def folder(self, out: Path) -> Path:
        name = "".join(letter if letter.isalnum() else "-" for letter in self.arm).strip("-")
        return out / self.track / f"{name}-{self.seed}"

    def is_trained(self, out: Path) -> bool:
        path = RunFolder(self.folder(out)).result
        return path.exists() and json.loads(path.read_text())["ending"] != "interrupted"

    def is_done(self, out: Path, parts: Sequence[str]) -> bool:
        return all(
            read_report(self.folder(out), kind, part, each)
            for part in self.unseen(parts)
            for kind in KINDS
            for each in REFINEMENTS
        )

    def unseen(self, parts: Sequence[str]) -> list[str]:
        """Those of `parts` whose patients' images the run does not train on."""
        return [part for part in parts if part != "shapes" or self.track == "P35"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="prepared data  [default: OUT/cache]")
    parser.add_argument("--minutes", type=float, default=9.0, help="that this call may take")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tracks", nargs="+", choices=TRACKS, default=list(TRACKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="to measure on  [default: test where it is there, or val]"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"), help="of forward passes")
    parser.add_argument("--compile", action="store_true", help="the networks, where there is CUDA")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting of all arms")
    parser.add_argument("--report-only", action="store_true", help="of what has finished so far")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    jobs = plan(options.tracks, options.arms, options.seeds)
    has_test = set(SPLIT0["test"]) & {path.name for path in options.data.rglob("patient*")}
    parts = options.parts or ["test" if has_test else "val"]
    left = [job for job in jobs if not job.is_done(options.out, parts)]
    if not options.report_only:
        left = work(left, options, parts, deadline)
    text = "\n\n".join(table(jobs, options.out, part) for part in parts)
    (options.out / "table.md").write_text(text)
    draw(jobs, options.out, options.out / "curves.png")
    print(text)
    print("nothing is left" if not left else f"{len(left)} of {len(jobs)} runs are left; next: {left[0]}")


def plan(tracks: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Seed by seed, so that the table is whole, with fewer seeds, as early as can be."""
    return [Job(track, arm, seed) for seed in seeds for track in tracks for arm in arms]


def work(jobs: list[Job], options: argparse.Namespace, parts: Sequence[str], deadline: float) -> list[Job]:
    """Train in turn until the deadline, while what is trained is measured beside; returns those that are not done."""
    device = pick_device(options.device)
    os.environ["OMP_NUM_THREADS"] = "1"  # of each process that measures
    processes = min(8, max(1, (os.cpu_count() or 1) - 2))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as measuring:
        measured = []
        for job in jobs:
            folder = job.folder(options.out)
            if not job.is_trained(options.out):
                train(job, options, device, deadline - _SECONDS_TO_MEASURE)
            if not job.is_trained(options.out):
                break
            measured += [
                measuring.submit(measure, folder, options.data, part, views, [kind], str(device))
                for part in job.unseen(parts)
                for kind in KINDS
                for views in (REFINEMENTS[:2], REFINEMENTS[2:])
            ]
        for each in measured:
            each.result()
    return [job for job in jobs if not job.is_done(options.out, parts)]


def train(job: Job, options: argparse.Namespace, device: torch.device, deadline: float) -> None:
    name, changes = ARMS[job.arm]
    seed, models = job.seed, []
    if job.arm in TAUGHT_BY:
        first = replace(job, arm=TAUGHT_BY[job.arm])
        if not first.is_trained(options.out):
            train(first, options, device, deadline)
        if not first.is_trained(options.out):
            return
        seed, models = job.seed + ANOTHER_SEED, [RunFolder(first.folder(options.out)).final]
    fast = {"train.precision": options.precision, "train.compile": options.compile and device.type == "cuda"}
    config = override(preset("acdc", name, options.data), {**changes, **fast, "train.seed": seed})
    config = override(config, dict(change.split("=", 1) for change in options.changes))
    cache = options.cache or options.out / "cache"
    prepared = prepare(options.data, config.data, cache)
    shapes = None
    if job.track == "P70":
        shapes = prepare(shapes_alone(options.data, options.out), config.data, cache)
    split = split_of(job.track, config, prepared)
    teachers = open_teachers(models, config, split)
    run = RunFolder(job.folder(options.out))
    if not run.config.exists():
        create_run(run.path, config, split, teachers)
    stop = StopRequest()
    fit(
        config, prepared, split, run, device=device, listener=Clock(stop, deadline, job), stop=stop, resume=True,
        shapes=shapes, teachers=teachers,
    )  # fmt: skip


def split_of(track: str, config: Config, prepared: PreparedData) -> Split:
    """The paper's split of the patients that are there, in P70 with all training patients supervised."""
    there = set(prepared.patient_ids)
    parts = {part: sorted(there & set(SPLIT0[part])) for part in ("scribbled", "shapes", "val", "test")}
    supervised, shapes = parts["scribbled"], parts["shapes"]
    if track == "P70":
        supervised, shapes = sorted(supervised + shapes), [f"shapes/{patient}" for patient in shapes]
    role = "dense" if config.data.supervision == "dense" else "scribbled"
    roles = {role: supervised, "shapes": shapes, "val": parts["val"], "test": parts["test"]}
    return Split(scheme=track, **{name: tuple(patients) for name, patients in roles.items()})


def shapes_alone(data: Path, out: Path) -> Path:
    """A folder with the 35 patients whose masks the discriminator sees in either track."""
    folder = out / "shapes"
    for found in data.rglob("patient*/*"):
        copy = folder / found.parent.name / found.name
        if found.parent.name in SPLIT0["shapes"] and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(found.resolve())
    return folder


class Clock:
    """A listener that says how a run goes, and asks for its end when this call's time is over."""

    def __init__(self, stop: StopRequest, deadline: float, job: Job) -> None:
        self._stop, self._deadline, self._job = stop, deadline, job

    def on_live(self, live: Live) -> None:
        if time.monotonic() > self._deadline:
            self._stop.ask("the time of this call is over")

    def on_epoch(self, report: EpochReport) -> None:
        if report.validation:
            print(f"{self._job} epoch {report.epoch}: {report.validation.mean:.3f}", flush=True)

    def on_checkpoint(self, step: int) -> None:
        pass


def table(jobs: Sequence[Job], out: Path, part: str) -> str:
    """All arms of each track over the seeds that are done, each compared with the first arm there is."""
    rows = [["track", "settings", "seeds", *(f"{title} ({kind})" for kind in KINDS for title in ("Dice", "HD95 mm")),
             "gain over the first, 95 % interval (final)", "better", "p",
             *(f"{each.name}: Dice / HD95 mm" for each in REFINEMENTS[1:]), "min/run"]]  # fmt: skip
    for track in TRACKS:
        here = [job for job in jobs if job.track == track and job.unseen([part]) and job.is_done(out, [part])]
        done = {arm: [job for job in here if job.arm == arm] for arm in ARMS}
        arms = [arm for arm in ARMS if done[arm]]
        for arm in arms:
            seeds = ", ".join(str(job.seed) for job in done[arm])
            rows.append([track, arm, seeds, *_cells(done[arm], done[arms[0]], out, part)])
    return f"Measured on {PARTS[part]}.\n\n{markdown(rows)}"


def _cells(done: Sequence[Job], baseline: Sequence[Job], out: Path, part: str) -> list[str]:
    def reports(some: Sequence[Job], kind: str, refinement: Any = PLAIN) -> list[dict[str, Any]]:
        found = [read_report(job.folder(out), kind, part, refinement) for job in some]
        return [report for report in found if report]

    def means(score: str, kind: str, refinement: Any = PLAIN) -> list[float]:
        return [report["summary"]["mean"][score] for report in reports(done, kind, refinement)]

    cells = [spread(means(score, kind), digits) for kind in KINDS for score, digits in (("dice", 3), ("hd95_mm", 1))]
    seeds = {job.seed for job in done} & {job.seed for job in baseline}
    if done[0].arm != baseline[0].arm and seeds:
        pair = [[job for job in some if job.seed in seeds] for some in (done, baseline)]
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
    """Validation Dice by epoch: the mean over classes, and the class that is thinnest and suffers first."""
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
    figure.axes[0].legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
