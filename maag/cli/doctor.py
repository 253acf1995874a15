"""`maag doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from maag.cli.options import json_option

_PACKAGES = (
    "torch",
    "monai",
    "ray",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
    "tensorrt-cu13",
    "nibabel",
    "pydicom",
)
_OLDEST_DRIVERS = {"11": 450, "12": 525, "13": 580}
"""By CUDA major version; https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html."""
_TIMEOUT_S = 20  # nvidia-smi takes seconds to wake a GPU


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Show what this machine has, and what is missing for which command."""
    from maag.cli.terminal import print_json, print_table, say

    facts, missing = examine()
    if as_json:
        print_json({"facts": facts, "missing": missing})
        return
    print_table("This machine", ("item", "found"), sorted(facts.items()), numbers=False)
    for sentence in missing:
        say(f"Missing: {sentence}")
    if not missing:
        say("Nothing is missing.")


def examine() -> tuple[dict[str, str], list[str]]:
    """Facts by name, and one sentence for each missing item."""
    from maag import __version__
    from maag.data.cache.root import default_cache_root

    cache = default_cache_root()
    facts = {
        "maag": __version__,
        "Python": platform.python_version(),
        "CPU cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "Disk free for the cache": f"{shutil.disk_usage(_existing(cache)).free / 2**30:.1f} GiB at {cache}",
        "MAAG_DATA": os.environ.get("MAAG_DATA", "not set; the default is data/NAME"),
    }
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    missing = [*_cuda(facts), *_onnxruntime(facts), *_tensorrt(facts), *_ray(facts)]
    return facts, missing


def _cuda(facts: dict[str, str]) -> list[str]:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        facts["CUDA"] = f"{torch.version.cuda}: " + ", ".join(
            f"{device.name} ({device.total_memory / 2**30:.0f} GiB, {device.major}.{device.minor})"
            for device in devices
        )
        return []
    if torch.version.cuda is None:
        return ["CUDA: this PyTorch is built for CPUs; the paper preset needs a GPU: install a CUDA build of torch"]
    driver, oldest = _nvidia_driver(), _OLDEST_DRIVERS.get(torch.version.cuda.split(".")[0], 0)
    if driver is not None and int(driver.split(".")[0]) < oldest:
        return [
            f"CUDA: the NVIDIA driver is {driver}, but CUDA {torch.version.cuda}, which this PyTorch is built for, "
            f"needs {oldest} or newer: install a newer driver, or a build of torch for an older CUDA"
        ]
    return ["CUDA: PyTorch finds no GPU; check the driver with nvidia-smi"]


def _nvidia_driver() -> str | None:
    """Driver version, such as `580.105.08`; None if nvidia-smi is missing or reports none."""
    try:
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        output = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"\d+(\.\d+)+", output)
    return found[0] if found else None


def _onnxruntime(facts: dict[str, str]) -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return ["ONNX Runtime, to run exported models: pip install onnxruntime-gpu (or onnxruntime)"]
    from deploy.runners.onnx_runner import available_providers

    facts["ONNX Runtime providers"] = ", ".join(available_providers())
    return []


def _tensorrt(facts: dict[str, str]) -> list[str]:
    """TensorRT, without touching its builder or runtime, which end the process if there is no GPU."""
    from deploy.runners.trt_presence import look_for_tensorrt

    presence = look_for_tensorrt(has_gpu=lambda: True)  # the GPU has a line of its own
    if presence.trt is not None:
        facts["TensorRT"] = f"{presence.trt.__version__}, libraries can be loaded"
    return [f"For engines (maag export --trt): {clause}" for clause in presence.missing]


def _ray(facts: dict[str, str]) -> list[str]:
    if importlib.util.find_spec("ray") is None:
        return ["Ray, for clusters and searches: pip install 'ray[train,tune]'"]
    facts["Ray cluster"] = os.environ.get("RAY_ADDRESS", "RAY_ADDRESS is not set")
    return []


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
