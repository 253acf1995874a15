"""What lies beside an exported model for people: a README, a model card, and a program that needs nothing of maag."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from deploy.artifact import Manifest
from maag.storage import write_text

PROGRAM = "segment.py"
README = "README.md"
CARD = "model_card.md"


def write_companions(folder: Path, manifest: Manifest) -> None:
    """Write them in the artefact's folder. Raises StorageError."""
    write_text(folder / PROGRAM, (files("deploy") / "standalone" / PROGRAM).read_text(encoding="utf-8"))
    write_text(folder / README, _readme(manifest))
    write_text(folder / CARD, _card(manifest))


def _readme(manifest: Manifest) -> str:
    data = manifest.config.data
    labels = "\n".join(f"| {value} | {name} |" for value, name in enumerate(data.classes))
    return f"""# A segmentor for {data.dataset}, exported by maag

`model.onnx` labels slices; `manifest.json` says everything that is needed to use it; `model_card.md` what it is.

| label | structure |
| --- | --- |
{labels}

## Without maag

```sh
pip install numpy nibabel onnxruntime
python segment.py IMAGE.nii.gz LABELS.nii.gz
```

`segment.py` is about a hundred lines of NumPy to read and to change: slices are resampled to {data.spacing_mm:g} mm,
brought to {data.size_px[0]} x {data.size_px[1]} pixels at the centre, normalised ({data.normalization}), segmented, and
the probabilities brought back to the image's own grid.

## With maag

```sh
maag predict IMAGES --model . --out LABELS
```

## The tensors

| tensor | name | type | shape |
| --- | --- | --- | --- |
{_tensor_rows(manifest)}
"""


def _tensor_rows(manifest: Manifest) -> str:
    rows = [("input", spec) for spec in manifest.inputs] + [("output", spec) for spec in manifest.outputs]
    return "\n".join(f"| {role} | `{spec.name}` | {spec.dtype} | {list(spec.shape)} |" for role, spec in rows)


def _card(manifest: Manifest) -> str:
    config, data, source = manifest.config, manifest.config.data, manifest.source
    versions = ", ".join(f"{name} {number}" for name, number in manifest.versions.items())
    parity = "\n".join(
        f"| {row.inputs} | {row.num_slices} | {row.max_difference:.1e} | {row.label_agreement:.4%} | "
        f"{'-' if row.dice is None else f'{row.dice:.4f}'} |"
        for row in manifest.parity
    )
    return f"""# Model card

- **What it does**: labels {", ".join(data.classes[1:])} in two-dimensional slices of {data.dataset} images.
- **What it is**: a U-Net with adversarial attention gates at levels {list(config.gates.levels)}, width
  {config.segmentor.width}, {manifest.precision}; learned from {data.supervision} supervision.
- **Where it comes from**: `{source.checkpoint}` ({source.kind or "weights"}), SHA-256 `{source.sha256}`; configuration
  `{manifest.config_digest}`, split `{source.split_digest}`.
- **Made with**: {versions}; ONNX opset {manifest.opset}.
- **How good it is**: as good as `maag evaluate` of this folder says on images that took no part in training. Scanners,
  protocols and diseases that were not in the training data may be labelled wrongly without any sign of it.
- **What it is not**: a medical device. Do not decide on patients with it.

## Agreement with PyTorch

| inputs | slices | largest difference of a probability | same labels | Dice of the labels |
| --- | --- | --- | --- | --- |
{parity}
"""
