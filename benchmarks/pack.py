"""Pack the results on a temporary machine into a few small files.

    python benchmarks/pack.py DIR

Writes DIR/pack/results.tar.gz with every table, plot, report, curve and log below DIR, and beside it the final weights
of each run with matrices in float16, which `maag evaluate` accepts. Unpacked elsewhere, the archive is the input of
`--report-only`.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

_KINDS = (".csv", ".json", ".jsonl", ".log", ".md", ".png")
_NOT = ("cache", "kernels", "labels", "pack", "shapes", "tensorboard")
"""Folders whose content can be recreated."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pack = folder / "pack"
    pack.mkdir(exist_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if not set(path.relative_to(folder).parts) & set(_NOT)]
    with tarfile.open(pack / "results.tar.gz", "w:gz") as archive:
        for path in files:
            if path.suffix in _KINDS and path.is_file():
                archive.add(path, str(path.relative_to(folder)))
    for path in files:
        if path.name == "final.safetensors":
            run = path.parents[1].relative_to(folder)
            halve(path, pack / f"{'-'.join(run.parts)}.safetensors")
    for path in sorted(pack.iterdir()):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def halve(weights: Path, out: Path) -> None:
    """Write `weights` with matrices in float16; vectors, some of which are variances, stay float32."""
    with safe_open(weights, framework="np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        header = file.metadata()
    halved = {name: array.astype(np.float16) if array.ndim > 1 else array for name, array in found.items()}
    save_file(halved, out, metadata=header)


if __name__ == "__main__":
    main()
