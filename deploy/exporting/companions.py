"""Files for people beside an exported model: a README, a model card, and a script that does not need maag."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from deploy.artifact.manifest import Manifest
from deploy.artifact.tensors import IMAGES, LABELS, PROBABILITIES, TensorSpec, has_dynamic_size
from deploy.exporting.activations import LARGEST_HALF
from deploy.exporting.provenance import provenance
from deploy.inputs.channel_files import CHANNELS_APART, has_own_extent, takes_colours
from deploy.runners.parity import weakness
from maag.config.data import DataConfig
from maag.config.networks import SIZE_MULTIPLE
from maag.data.files.pictures import COLOURS
from maag.storage import write_text

PROGRAM = "segment.py"
README = "README.md"
CARD = "model_card.md"
LICENCE = (
    "TensorRT's licence forbids its use in medical and life critical applications without a further agreement with\n"
    "NVIDIA. This concerns the engine only: `model.onnx` on ONNX Runtime's CUDA and CPU needs no TensorRT."
)


def write_companions(folder: Path, manifest: Manifest) -> None:
    """Write them into the artefact's folder. Raises StorageError."""
    write_text(folder / PROGRAM, (files("deploy.exporting") / "standalone" / PROGRAM).read_text(encoding="utf-8"))
    write_text(folder / README, _readme(manifest))
    write_text(folder / CARD, _card(manifest))


def _readme(manifest: Manifest) -> str:
    data = manifest.config.data
    labels = "\n".join(f"| {one.value} | {one.name} | {_hex(one.colour)} |" for one in manifest.classes)
    return f"""# A segmentor for {data.dataset}, exported by maag

`model.onnx` labels slices, `manifest.json` has everything needed to use it, and `model_card.md` describes it.
{_of_ensemble(manifest)}
| label | structure | colour |
| --- | --- | --- |
{labels}

## Without maag

```sh
pip install numpy nibabel onnxruntime
{_segment_command(data.channels)}
```
{_of_channels(data.channels)}
`segment.py` is a short NumPy script to read and to change: slices are resampled to {data.spacing_mm:g} mm, cropped or
padded at the centre to {data.size_px[0]} x {data.size_px[1]} pixels, normalised ({data.normalization}) and segmented,
and the probabilities are resampled to the grid of the image. `geometry` in the manifest describes each of these steps
and its inverse, with kernel, rounding and padding, so that other programs can do the
same.{_of_int8(manifest)}{_of_orientations(manifest)}

## With maag

```sh
maag predict IMAGES --model . --out LABELS
```
{_of_folders(data)}{_of_extent(data)}
## The tensors

| tensor | name | type | shape | what it is |
| --- | --- | --- | --- | --- |
{_tensor_rows(manifest)}

{_dynamic_sizes(manifest)}
{_engine(manifest)}"""


def _of_ensemble(manifest: Manifest) -> str:
    members = manifest.source.members
    return f"It averages the class probabilities of {len(members)} networks, which the card lists.\n" if members else ""


def _segment_command(channels: int) -> str:
    if channels == 1:
        return "python segment.py IMAGE.nii.gz LABELS.nii.gz"
    images = " ".join(f"IMAGE_{channel:04}.nii.gz" for channel in range(channels))
    return f"python segment.py {images} LABELS.nii.gz"


def _of_channels(channels: int) -> str:
    return "" if channels == 1 else "\nAn image has one file per channel, in the order of training.\n"


def _of_folders(data: DataConfig) -> str:
    """Which files `maag predict` takes as an image."""
    if data.channels == 1:
        return ""
    if takes_colours(data):
        return "\nIMAGES is a folder of colour pictures; grey ones are used for all channels.\n"
    names = ", ".join(f"`X_{channel:04}.nii.gz`" for channel in range(data.channels))
    joined = f"\nIn the folder IMAGES, {names} are the channels of one image, whose labels are `X.nii.gz`.\n"
    if data.dataset != CHANNELS_APART:
        return joined
    alone = "A colour picture holds all three channels, whatever its number. " if data.channels == COLOURS else ""
    return f"{joined}{alone}Grey pictures with such names are joined, and their labels are `X.png`.\n"


def _of_extent(data: DataConfig) -> str:
    """The step before `geometry` in the manifest, which starts from the spacing of the image."""
    if not has_own_extent(data):
        return ""
    return (
        "\nBefore the steps of `geometry`, a picture is assumed to measure 160 x 80 mm (height x width), whatever its\n"
        "number of pixels, as in training; `maag predict` does so.\n"
    )


def _tensor_rows(manifest: Manifest) -> str:
    rows = [("input", spec) for spec in manifest.inputs] + [("output", spec) for spec in manifest.outputs]
    return "\n".join(
        f"| {role} | `{spec.name}` | {spec.dtype} | {', '.join(map(str, spec.shape))} | {_meaning(spec, manifest)} |"
        for role, spec in rows
    )


def _meaning(spec: TensorSpec, manifest: Manifest) -> str:
    if spec.name == IMAGES:
        return "normalised slices"
    if spec.name == PROBABILITIES:
        return "of each class, in [0, 1]; they sum to 1"
    if spec.name == LABELS:
        return "the class of the largest probability, on the model's grid"
    level = spec.name.rpartition("_")[2]
    factor = "1 + this" if manifest.config.gates.residual else "this"
    return (
        f"attention of the gate at level {level}, in [0, 1], at its own resolution; it multiplies features by {factor}"
    )


def _dynamic_sizes(manifest: Manifest) -> str:
    spec = manifest.inputs[0]
    if not has_dynamic_size(spec):
        return "A batch may have any number of slices."
    height, width = manifest.config.data.size_px
    return (
        f"A batch may have any number of slices, of any height and width that are multiples of {SIZE_MULTIPLE}. The\n"
        f"segmentor was trained on {height} x {width}, and `segment.py` and `maag predict` run it at that size.\n"
        "Parity with PyTorch was measured at another size too, the quality of labels there was not. Normalise other\n"
        "sizes with the statistics of the training grid."
    )


def _engine(manifest: Manifest) -> str:
    engine = manifest.engine
    if engine is None:
        return ""
    made_for = engine.environment
    return f"""
## The engine

`{engine.file}` is a TensorRT engine for {made_for.gpu} (compute capability {made_for.compute_capability}) with TensorRT
{made_for.tensorrt} and CUDA {made_for.cuda}, for inputs of {engine.profile.name} (smallest, optimal, largest). On
other systems `maag predict` reports what differs and builds an engine from `model.onnx`.

{LICENCE}
"""


def _of_int8(manifest: Manifest) -> str:
    if manifest.precision != "int8":
        return ""
    return (
        "\n\nRun this int8 model on CPUs without ONNX Runtime's fusions, as `segment.py` does: fused, its sums\n"
        "overflow on processors without VNNI. The last bit of an intensity may change a rounding, so programs that\n"
        "resample in another order differ in single voxels along borders."
    )


def _of_orientations(manifest: Manifest) -> str:
    if not manifest.source.orientations:
        return ""
    orientations = " or ".join(manifest.source.orientations)
    return (
        f"\n\nThe training images have orientation {orientations}. To the model others are mirrored or rotated;\n"
        "`segment.py` and `maag predict` report them, and with `--reorient` reorient such an image like those, by\n"
        "its header, and its labels back."
    )


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _card(manifest: Manifest) -> str:
    data = manifest.config.data
    versions = ", ".join(f"{name} {number}" for name, number in manifest.versions.items())
    parity = "\n".join(
        f"| {row.candidate} | {row.inputs} | {row.num_slices} | {row.max_difference:.1e} | {row.label_agreement:.4%} | "
        f"{'-' if row.dice is None else f'{row.dice:.4f}'} |"
        for row in manifest.parity
    )
    return f"""# Model card

- **Task**: labels {", ".join(data.classes[1:])} in two-dimensional slices of {data.dataset} images.
{provenance(manifest)}
- **Made with**: {versions}; ONNX opset {manifest.opset}.
- **Accuracy**: measure it with `maag evaluate` of this folder on images that took no part in training. Images of
  scanners, protocols and diseases that were not in the training data may be labelled wrongly without warning.
- **Intended use**: research. It is not a medical device: do not base decisions on patients on it.{_limits(manifest)}

## Agreement with PyTorch

| runner | inputs | slices | largest difference of a probability | same labels | Dice of the labels |
| --- | --- | --- | --- | --- | --- |
{parity}
"""


def _limits(manifest: Manifest) -> str:
    lines = []
    if not manifest.source.shortfalls:
        why = "an average of several networks has no correction" if manifest.source.members else "none was measured"
        lines.append(
            f"- **Expected Dice**: `maag predict` does not correct it for overconfidence, as {why}; only the order of\n"
            "  volumes by it is meaningful."
        )
    if manifest.largest_activation is not None:
        lines.append(
            f"- **Range of fp16**: the largest activation was {manifest.largest_activation:.3g} on the slices below;\n"
            f"  the maximum of fp16 is {LARGEST_HALF:g}."
        )
    if weak := weakness(manifest.parity):
        lines.append(f"- **Limits of the table below**: {weak}.")
    if manifest.engine is not None:
        lines.append(f"- **TensorRT engine**: for {manifest.engine.environment.gpu}. {LICENCE}")
    return "".join(f"\n{line}" for line in lines)
