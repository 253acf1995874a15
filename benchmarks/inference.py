"""Speed of exported models, cost of lower precisions, and overhead of `maag predict` in time and memory.

    python benchmarks/inference.py --data ACDC_DIR --model RUN --out DIR [--rounds 5] [--volumes 12]
    python benchmarks/inference.py --data ACDC_DIR --out DIR --gpu-only

Tables: ONNX Runtime against PyTorch eager with the paper's network; fp32, fp16 and int8 exports of RUN by size, speed
and Dice against the masks of its validation patients; `maag predict` end to end against its bare runner on the same
slices, with the paper's network and with RUN's; peak memory of `maag predict` for 20 and for 200 volumes. Alternatives
run in interleaved rounds, so that drift in the machine's speed affects all alike. With a GPU there are two more, and
with --gpu-only these alone: TensorRT and ONNX Runtime against PyTorch eager and compiled, in slices per second, and
`maag predict` with the paper's network on the GPU.
"""

from __future__ import annotations

import argparse
import copy
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from inference_on_gpu import on_gpu
from numpy.typing import NDArray
from rounds import spread, table, timed_in_rounds

from deploy.artifact.manifest import MODEL, Source
from deploy.exporting.onnx_export import export as export_segmentor
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.runners.opening import open_artifact
from maag.checkpoint import load_segmentor
from maag.cli.export import export
from maag.config.schema import Config
from maag.data.cases import Case
from maag.data.catalog import find_cases, preset, reader_of
from maag.data.geometry import prepare_image
from maag.data.splits import Split
from maag.evaluate.measure import evaluate, runner_predictor
from maag.evaluate.report import Subject
from maag.inference import Runner, TorchRunner
from maag.models.build import build_segmentor
from maag.models.segmentor import Segmentor
from maag.storage import read_json

PRECISIONS = ("fp32", "fp16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="A trained run.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--volumes", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu-only", action="store_true")
    options = parser.parse_args()
    if options.model is None and not options.gpu_only:
        parser.error("--model is missing: a run that was trained on these data")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    config = preset("acdc", "paper")
    torch.manual_seed(0)
    segmentor = build_segmentor(config).eval()
    cases = find_cases(config.data, options.data)
    if not options.gpu_only:
        on_cpu(segmentor, config, cases, options)
    if torch.cuda.is_available():
        runner = TorchRunner(copy.deepcopy(segmentor), "cuda")
        chosen = cases[: options.volumes]
        end_to_end("the paper's network, PyTorch on the GPU", runner, config, chosen, options.out, options.rounds)
        on_gpu(segmentor, config, options.out)


def on_cpu(segmentor: Segmentor, config: Config, cases: Sequence[Case], options: argparse.Namespace) -> None:
    """The tables that need no GPU."""
    paper = options.out / "paper"
    export_segmentor(segmentor, config, paper, Source(checkpoint="initial weights", sha256="-"))
    print(f"{options.threads} thread(s), torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}\n")
    runners(segmentor, config, paper, options.rounds)
    precisions(options.model, options.data, options.out, options.rounds)
    for name, model in (("the paper's network", paper), ("the run's network", options.out / "fp32")):
        opened = open_artifact(model, "cpu")
        chosen = cases[: options.volumes]
        end_to_end(name, opened.runner, opened.manifest.config, chosen, options.out, options.rounds)
    memory(options.out / "fp32", [case.images[0] for case in cases], options.out)


def runners(segmentor: Segmentor, config: Config, paper: Path, rounds: int) -> None:
    """ONNX Runtime against PyTorch, the paper's network on the CPU."""

    class Plain:
        """PyTorch as commonly used, with its default memory layout."""

        name = "PyTorch eager"

        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                found: NDArray[np.float32] = contiguous(torch.from_numpy(images)).logits.softmax(1).numpy()
            return found

    contiguous = build_segmentor(config).eval()
    contiguous.load_state_dict(segmentor.state_dict())
    for size in (1, 8, 16):
        contenders: Mapping[str, Runner] = {
            "PyTorch eager": Plain(),
            "PyTorch, channels last (--backend torch)": TorchRunner(segmentor, batch_size=size),
            "ONNX Runtime (--backend onnx)": open_artifact(paper, "cpu", size).runner,
        }
        images = np.random.default_rng(0).normal(size=(size, 1, *config.data.size_px)).astype(np.float32)
        times = timed_in_rounds({name: partial(runner, images) for name, runner in contenders.items()}, rounds)
        rows = [
            (name, f"{1000 * statistics.median(found) / size:.0f}", spread(times["PyTorch eager"], found))
            for name, found in times.items()
        ]
        table((f"the paper's network, batches of {size}", "ms a slice", "times eager, median (min to max)"), rows)


def precisions(model: Path, data: Path, out: Path, rounds: int) -> None:
    """Size, speed and Dice against the masks of each precision."""
    split = Split.from_dict(read_json(model / "split.json"))
    opened: dict[str, Runner] = {}
    facts: dict[str, list[str]] = {}
    config = load_segmentor(model).config
    cases = [case for case in find_cases(config.data, data) if case.patient_id in split.val]
    for precision in PRECISIONS:
        manifest = export((model,), out / precision, precision, data)  # type: ignore[arg-type]
        opened[precision] = open_artifact(out / precision, "cpu").runner
        subject = Subject(model=precision, dataset=config.data.dataset, split="val")
        report = evaluate(cases, runner_predictor(opened[precision], config.data), config.data, subject)
        real = next(row for row in manifest.parity if row.inputs == "validation" and row.candidate == "onnx-cpu")
        facts[precision] = [
            f"{(out / precision / MODEL).stat().st_size / 1e6:.2f}",
            f"{100 * real.label_agreement:.3f} %",
            f"{real.dice:.4f}",
            f"{report.mean('dice'):.4f}",
        ]
    images, _ = prepare_image(reader_of(config.data.dataset).load_volume(cases[0]), config.data)
    times = timed_in_rounds({name: partial(runner, images) for name, runner in opened.items()}, rounds)
    rows = [(name, *facts[name], spread(times["fp32"], times[name])) for name in PRECISIONS]
    table(
        (
            "precision",
            "file, MB",
            "same labels as PyTorch",
            "Dice of the labels",
            "Dice against masks",
            "CPU, times fp32",
        ),
        rows,
    )


def end_to_end(name: str, runner: Runner, config: Config, cases: Sequence[Case], out: Path, rounds: int) -> None:
    """`maag predict` on files, against its runner alone on their slices."""
    data = config.data
    files = [case.images[0] for case in cases]
    slices = [prepare_image(reader_of(data.dataset).load_volume(case), data)[0] for case in cases]

    def whole() -> None:
        shutil.rmtree(out / "labels", ignore_errors=True)
        outcome = predict(files, Threads(runner), data, out / "labels", "-")
        assert outcome.done == len(files)

    def bare() -> None:
        for images in slices:
            runner(images)

    times = timed_in_rounds({"whole": whole, "bare": bare}, rounds)
    count = sum(map(len, slices))
    rows = [
        (
            name,
            f"{len(files)} / {count}",
            *(f"{count / statistics.median(times[what]):.1f}" for what in ("whole", "bare")),
            spread(times["bare"], times["whole"]),
        )
    ]
    table(("model", "volumes / slices", "end to end, slices/s", "bare runner, slices/s", "ratio; target 0.9"), rows)


def memory(model: Path, files: Sequence[Path], out: Path) -> None:
    """Peak resident memory of the command by the number of volumes, which repeat a few files."""
    few, many = 20, 200
    rows = []
    for number in (few, many):
        folder = out / f"volumes-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for place in range(number):
            (folder / f"{place:03}.nii.gz").symlink_to(files[place % few].resolve())
        words = ["predict", folder, "--model", model, "--out", out / f"labels-{number}"]
        process = subprocess.Popen([sys.executable, "-m", "maag", *map(str, words)], stderr=subprocess.DEVNULL)
        # From /proc, because the peak that wait4 reports includes this process before exec.
        peak_kib = 0
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            peak_kib = int(found[1]) if found else peak_kib
            time.sleep(0.02)
        assert process.returncode == 0
        rows.append((str(number), f"{peak_kib / 1024:.0f}"))
    table(("volumes", "peak memory of `maag predict`, MiB"), rows)


if __name__ == "__main__":
    main()
