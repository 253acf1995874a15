"""Inference speed of the paper's network on a GPU by runtime and precision; called by `inference.py`."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import spread, table, timed_in_rounds

from deploy.artifact.manifest import Source
from deploy.exporting.onnx_export import export as export_segmentor
from deploy.runners.opening import open_artifact
from maag.config.schema import Config
from maag.models.build import build_segmentor
from maag.models.segmentor import Segmentor

_GFLOP_A_SLICE = 17.227  # The paper's network on 1 x 224 x 224: multiplications and additions of its convolutions.


def on_gpu(segmentor: Segmentor, config: Config, out: Path, batch: int = 32) -> None:
    """Time each way to run the paper's network on this machine's GPU, including transfers of images and labels."""
    device = torch.device("cuda")
    network = build_segmentor(config).eval().to(device, memory_format=torch.channels_last)
    network.load_state_dict(segmentor.state_dict())
    compiled = torch.compile(network)

    def by_torch(module: Any, dtype: torch.dtype) -> Callable[[], None]:
        def run() -> None:
            given = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
            with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                module(given).logits.argmax(1).to(torch.uint8).cpu()

        return run

    images = np.random.default_rng(0).normal(size=(batch, 1, *config.data.size_px)).astype(np.float32)
    ways: dict[str, Callable[[], object]] = {
        "PyTorch eager, fp32": by_torch(network, torch.float32),
        "PyTorch eager, fp16": by_torch(network, torch.float16),
        "PyTorch compiled, fp16": by_torch(compiled, torch.float16),
    }
    for precision in ("fp32", "fp16"):
        folder = out / f"gpu-{precision}"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier call
        for backend in ("onnx", "tensorrt"):
            try:
                if not folder.exists():
                    # Initial weights; `maag export` might refuse their error at lower precision.
                    export_segmentor(segmentor, config, folder, Source(checkpoint="-", sha256="-"), precision=precision)
                runner = open_artifact(folder, "cuda", batch, backend=backend).runner  # type: ignore[arg-type]
            except Exception as problem:
                print(f"{backend} {precision}: not run, {problem}", flush=True)
                continue
            ways[f"{runner.name}, {precision}"] = partial(runner, images)
    times = timed_in_rounds(ways, 20)
    base = times["PyTorch eager, fp32"]
    rows = []
    for name, found in times.items():
        rate = batch / statistics.median(found)
        rows.append((name, f"{rate:.0f}", f"{rate * _GFLOP_A_SLICE / 1000:.1f}", spread(base, found)))
    title = f"{torch.cuda.get_device_name()}, batches of {batch}"
    table((title, "slices/s", "TFLOP/s", "times eager fp32"), rows)
