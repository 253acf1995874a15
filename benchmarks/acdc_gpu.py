"""The full-size table on ACDC, on one big GPU, in calls of a few minutes each: no network, no Ray.

    python benchmarks/acdc_gpu.py --data ACDC_DIR --out DIR [--minutes 9] [--seeds 1 2 3] [--tracks P35 P70] [--compile]

Repeat the call with the same arguments until it reports that nothing is left: each call continues where the last one
stopped, and prints the table so far. A stopped run resumes exactly; a run that fails is reported, and the others
continue. The exit code is 3 if runs are left for another call, and 1 if some failed. `--data` is the challenge's
folder; prepared data are kept in DIR/cache, or in the folder given with `--cache`.

P35: the paper's fold, 35 patients with scribbles, and 35 others whose masks the discriminator sees. P70: scribbles of
all 70; the same 35 give masks, but never paired with their images. Both validate on the paper's 15 patients and are
evaluated on its 15 test patients if these are there, otherwise on the validation fold, as the table says. With
`--parts val shapes` the runs of P35 are also evaluated on the 35 patients whose images they did not see. P70-2 and
P70-3 validate on 15 of these 35 instead, and train on the paper's validation fold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from acdc_arms import ANOTHER_SEED
from acdc_jobs import ARMS, FOLDS, KINDS, PARTS, REFINEMENTS, TRACKS, Job, patients_of, plan
from acdc_table import draw, table
from compare import measure

from maag.cli.resolving import pick_device
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import prepare
from maag.data.catalog import preset
from maag.data.datasets.acdc import SPLIT0
from maag.data.splits import Split
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.reports import EpochReport, StepReport
from maag.train.second_stage.teachers import open_teachers
from maag.train.stopping import StopRequest

_SECONDS_TO_MEASURE = 45.0
"""Of a call, reserved to evaluate the last trained run."""
_LEFT = 3
"""The exit code if runs are left for another call."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="prepared data  [default: OUT/cache]")
    parser.add_argument("--minutes", type=float, default=9.0, help="that this call may take")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tracks", nargs="+", choices=TRACKS, default=["P35", "P70"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--except", dest="left_out", nargs="+", choices=ARMS, default=[], help="of the arms")
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
    jobs = plan(options.tracks, [arm for arm in options.arms if arm not in options.left_out], options.seeds)
    has_test = set(SPLIT0["test"]) & {path.name for path in options.data.rglob("patient*")}
    parts = options.parts or ["test" if has_test else "val"]
    left, failed = [job for job in jobs if not job.is_done(options.out, parts)], 0
    if not options.report_only:
        left, failed = work(left, options, parts, deadline)
    text = "\n\n".join(table(jobs, options.out, part) for part in parts)
    (options.out / "table.md").write_text(text)
    draw(jobs, options.out, options.out / "curves.png")
    print(text)
    print("nothing is left" if not left else f"{len(left)} of {len(jobs)} runs are left; next: {left[0]}")
    if failed:
        raise SystemExit(f"{failed} trainings or measurements failed, as said above")
    if left and not options.report_only:
        raise SystemExit(_LEFT)


def work(jobs: list[Job], options: argparse.Namespace, parts: Sequence[str], deadline: float) -> tuple[list[Job], int]:
    """Train one job after the other until the deadline, and evaluate trained ones at the same time.

    Returns:
        The jobs that are not done, and how many trainings and measurements failed.
    """
    failed: list[Job] = []
    device = pick_device(options.device)
    os.environ["OMP_NUM_THREADS"] = "1"  # of each process that measures
    processes = min(8, max(1, (os.cpu_count() or 1) - 2))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as measuring:
        measured: list[tuple[Job, Future[None]]] = []
        for job in jobs:
            folder = job.folder(options.out)
            if not job.is_trained(options.out):
                if time.monotonic() > deadline - _SECONDS_TO_MEASURE:
                    break
                if set(job.teachers()) & set(failed):
                    continue
                with named(job, failed):
                    train(job, options, device, deadline - _SECONDS_TO_MEASURE)
            if job in failed:
                continue
            if not job.is_trained(options.out):
                break
            with named(job, failed):
                measured += [
                    (job, measuring.submit(measure, folder, options.data, part, views, [kind], str(device)))
                    for part in job.unseen(parts)
                    for kind in KINDS
                    for views in (REFINEMENTS[:2], REFINEMENTS[2:])
                ]
        for job, each in measured:
            with named(job, failed):
                each.result()
    return [job for job in jobs if not job.is_done(options.out, parts)], len(failed)


@contextmanager
def named(job: Job, failed: list[Job]) -> Iterator[None]:
    """Report and count a failure instead of raising it: one failing run must not waste a call on a GPU."""
    try:
        yield
    except Exception:
        print(f"{job} failed:\n{traceback.format_exc()}", flush=True)
        failed.append(job)


def train(job: Job, options: argparse.Namespace, device: torch.device, deadline: float) -> None:
    name, changes = ARMS[job.arm]
    firsts = job.teachers()
    for first in firsts:
        if not first.is_trained(options.out):
            train(first, options, device, deadline)
        if not first.is_trained(options.out):
            return
    seed = job.seed + ANOTHER_SEED if firsts else job.seed
    models = [RunFolder(first.folder(options.out)).final for first in firsts]
    fast = {"train.precision": options.precision, "train.compile": options.compile and device.type == "cuda"}
    config = override(preset("acdc", name, options.data), {**changes, **fast, "train.seed": seed})
    config = override(config, dict(change.split("=", 1) for change in options.changes))
    cache = options.cache or options.out / "cache"
    prepared = prepare(options.data, config.data, cache)
    shapes = None
    if job.track in FOLDS:
        shapes = prepare(shapes_alone(job.track, options.data, options.out), config.data, cache)
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
    """The track's split of the available patients."""
    there = set(prepared.patient_ids)
    parts = {part: tuple(sorted(there & set(named))) for part, named in patients_of(track).items()}
    supervised, shapes = parts["scribbled"], parts["shapes"]
    if track in FOLDS:
        shapes = tuple(f"shapes/{patient}" for patient in shapes)
    role = "dense" if config.data.supervision == "dense" else "scribbled"
    return Split(scheme=track, **{role: supervised, "shapes": shapes, "val": parts["val"], "test": parts["test"]})


def shapes_alone(track: str, data: Path, out: Path) -> Path:
    """A folder with the patients whose masks the discriminator sees."""
    folder = out / track / "shapes"
    named = patients_of(track)["shapes"]
    for found in data.rglob("patient*/*"):
        copy = folder / found.parent.name / found.name
        if found.parent.name in named and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(found.resolve())
    return folder


class Clock:
    """A listener that prints validations, and requests the end of the run when the time of this call is over."""

    def __init__(self, stop: StopRequest, deadline: float, job: Job) -> None:
        self._stop, self._deadline, self._job = stop, deadline, job

    def on_step(self, report: StepReport) -> None:
        if time.monotonic() > self._deadline:
            self._stop.interrupt("the time of this call is over")

    def on_epoch(self, report: EpochReport) -> None:
        if report.validation:
            print(f"{self._job} epoch {report.epoch}: {report.validation.mean:.3f}", flush=True)

    def on_checkpoint(self, step: int) -> None:
        pass


if __name__ == "__main__":
    main()
