"""Segment NIfTI volumes with the model beside this file. Needs only numpy, nibabel and onnxruntime.

pip install numpy nibabel onnxruntime
python segment.py IMAGE.nii.gz LABELS.nii.gz

A model of several channels takes a file for each channel, in their order, followed by that of the labels:
python segment.py IMAGE_0000.nii.gz IMAGE_0001.nii.gz LABELS.nii.gz

With --reorient before them, images whose headers have another orientation than the training images are reoriented
like those, and the labels back.
"""

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

HERE = Path(__file__).parent
SLICES_AT_ONCE = 16


def cubic(x):
    """Kernel of cubic convolution with a = -0.75."""
    x, a = abs(x), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def linear(x):
    return np.maximum(0.0, 1 - abs(x))


def resampling(size_in, size_out, kernel, reach):
    """A (size_out, size_in) matrix that resamples a line; the edge is repeated outside."""
    matrix = np.zeros((size_out, size_in))
    centres = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    for tap in range(1 - reach, 1 + reach):
        places = np.floor(centres).astype(int) + tap
        np.add.at(matrix, (np.arange(size_out), places.clip(0, size_in - 1)), kernel(centres - places))
    return matrix


def resize(planes, shape, kernel, reach):
    """(N, Y, X) planes to (N, *shape)."""
    if planes.shape[1:] == tuple(shape):
        return planes
    rows = resampling(planes.shape[1], shape[0], kernel, reach)
    columns = resampling(planes.shape[2], shape[1], kernel, reach)
    return (rows @ planes @ columns.T).astype(np.float32)


def fit(planes, shape, **padding):
    """Crop and pad (N, Y, X) planes at the centre to (N, *shape)."""
    crop, pad = [slice(None)], [(0, 0)]
    for have, want in zip(planes.shape[1:], shape):
        before = abs(have - want) // 2
        crop.append(slice(before, before + want) if have > want else slice(None))
        pad.append((before, want - have - before) if want > have else (0, 0))
    return np.pad(planes[tuple(crop)], pad, **padding)


def normalise(voxels, rule):
    if rule == "unit":
        return voxels / np.float32(255)
    p5, p25, median, p75, p95 = np.percentile(voxels, (5, 25, 50, 75, 95))
    if p95 - p5 <= 1e-5 * max(abs(p5), abs(p95)):
        return np.zeros_like(voxels)
    width = p75 - p25 if p75 - p25 > 1e-3 * (p95 - p5) else p95 - p5
    return ((np.clip(voxels, p5, p95) - median) / width).astype(np.float32)


def segment(voxels, spacing_mm, session, data):
    """(C, Z, Y, X) intensities, with the pixel spacing (Y, X) in mm, to (Z, Y, X) labels."""
    size, source = data["size_px"], voxels.shape[2:]
    resized = [max(1, int(n * mm / data["spacing_mm"] + 1e-4)) for n, mm in zip(source, spacing_mm)]
    channels = [fit(resize(channel, resized, cubic, 2), size, mode="edge") for channel in voxels]
    images = np.stack([normalise(channel, data["normalization"]) for channel in channels], axis=1)
    outside = ~fit(np.ones((1, *size), bool), resized, constant_values=False)[0]
    labels = []
    for start in range(0, len(images), SLICES_AT_ONCE):
        batch = images[start : start + SLICES_AT_ONCE]
        (scores,) = session.run(["probabilities"], {"images": batch})
        count, classes = scores.shape[:2]
        scores = fit(scores.reshape(-1, *size), resized, constant_values=0).reshape(count, classes, *resized)
        scores[:, 0, outside] = 1  # background where the grid was cropped
        scores = resize(scores.reshape(-1, *resized), source, linear, 1).reshape(count, classes, *source)
        labels.append(scores.argmax(axis=1).astype(np.uint8))
    return np.concatenate(labels)


def fail(what, rule, error):
    """Exit with one sentence; error messages of libraries may have several lines."""
    sys.exit(f"{what}: {rule} ({' '.join(str(error).split()) or type(error).__name__})")


def orientation_of(image):
    """Orientation code such as LPS; empty where the header does not record it, or the axes are oblique."""
    recorded = image.header["qform_code"] or image.header["sform_code"]
    lengths = np.linalg.norm(image.affine[:3, :3], axis=0)
    if not recorded or not lengths.all() or (np.abs(image.affine[:3, :3] / lengths).max(axis=0) < 0.8).any():
        return ""
    return "".join(nib.aff2axcodes(image.affine))


def reorientation(path, orientation, trained, requested):
    """nibabel's orientations of the image and of the one that the model is to see; two equal ones to keep it."""
    stay = axcodes2ornt("RAS"), axcodes2ornt("RAS")
    if requested and not trained:
        sys.exit("--reorient: the model does not record the orientation of its training images; leave --reorient out")
    if requested and not orientation:
        why = "its header records no orientation, or its axes are oblique"
        sys.stderr.write(f"{path}: not reoriented: {why}\n")
    if not orientation or not trained or orientation[:2] in {code[:2] for code in trained}:
        return stay
    if not requested:
        differs = f"oriented differently ({orientation}) from the training images ({' or '.join(trained)})"
        sys.stderr.write(f"{path}: {differs}; --reorient reorients it like those, and its labels back\n")
        return stay
    return axcodes2ornt(orientation), axcodes2ornt(trained[0])


def load(path):
    """The image, (x, y, z) or for a cine (x, y, z, t) intensities, voxel size (x, y, z) in mm, and orientation."""
    try:
        image = nib.load(path)
        kind, unit = image.get_data_dtype().kind, int(image.header["xyzt_units"]) % 8
        with np.errstate(all="ignore"):  # overflows become infinite, and are refused below
            voxels = np.asarray(image.dataobj, dtype=np.float32 if kind in "iuf" else None)
        orientation = orientation_of(image)
    except Exception as error:  # nibabel may raise anything for damaged files
        fail(path, "not a whole, readable NIfTI file; copy or export it again", error)
    if kind not in "iuf" or voxels.ndim < 2 or not voxels.size or not np.isfinite(voxels).all():
        sys.exit(f"{path}: not a slice, volume or cine of finite numbers; export it again")
    unit_mm = {1: 1e3, 3: 1e-3}.get(unit, 1.0)
    sizes_mm = [float(zoom) * unit_mm for zoom in (*image.header.get_zooms(), 1.0)[:3]]  # a slice has no third
    return image, voxels[..., None] if voxels.ndim == 2 else voxels, sizes_mm, orientation


def open_model():
    """Data settings and orientations of the training images from the manifest, and the model, ready to run."""
    try:
        manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are reported once, below
        if manifest["precision"] == "int8":  # fused int8 convolutions overflow on CPUs without VNNI
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = HERE / "model.onnx"
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return manifest["config"]["data"], manifest["source"].get("orientations") or (), session
    except Exception as error:  # ONNX Runtime has exception types of its own
        fail(HERE, "manifest.json or model.onnx in it cannot be used; export or copy the model again", error)


def save(image, path):
    """Save atomically: an existing file stays until the labels are complete."""
    path = Path(path).resolve()
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        nib.save(image, partial)
        partial.replace(path)
    except OSError as error:
        fail(path, "the labels cannot be written; make room, or choose another path", error)
    finally:
        partial.unlink(missing_ok=True)


def main(*paths):
    data, trained, session = open_model()
    reorient = paths[:1] == ("--reorient",)
    paths = paths[reorient:]
    *image_paths, labels_path = paths or ("",)
    if len(image_paths) != data["channels"]:
        sys.exit(
            f"{len(image_paths)} images and a path for the labels were given; this model takes {data['channels']}: one "
            "NIfTI file per channel, in their order"
        )
    if any(Path(labels_path).resolve() == Path(path).resolve() for path in image_paths):
        sys.exit(f"{labels_path}: the labels would overwrite the image; give them another name")
    if not labels_path.lower().endswith((".nii", ".nii.gz")) or not Path(labels_path).parent.is_dir():
        sys.exit(f"{labels_path}: the labels need a name that ends in .nii.gz or .nii, in an existing folder")
    (image, first, sizes_mm, orientation), *others = map(load, image_paths)
    for path, (_, voxels, other_mm, other) in zip(image_paths[1:], others):
        alike = voxels.shape == first.shape and np.allclose(other_mm[:2], sizes_mm[:2], rtol=1e-3)
        if not alike or (orientation and other and orientation != other):
            sys.exit(f"{path}: not on the grid of {image_paths[0]}; resample all channels to one grid")
        orientation = orientation or other
    pair = reorientation(image_paths[0], orientation, trained, reorient)
    forward, inverse = ornt_transform(*pair), ornt_transform(*reversed(pair))
    channels = [apply_orientation(voxels, forward).T for voxels in (first, *(other[1] for other in others))]
    x_mm, y_mm, _ = (sizes_mm[axis] for axis in forward[:, 0].argsort())
    if not (0 < x_mm < 1e3 and 0 < y_mm < 1e3):
        sys.exit(f"{image_paths[0]}: the pixel spacing in its header is {x_mm:g} x {y_mm:g} mm; correct it")
    shape = channels[0].shape
    parts = [voxels.reshape(-1, *shape[-3:]) for voxels in channels]
    labels = [segment(np.stack(frame), (y_mm, x_mm), session, data) for frame in zip(*parts)]
    labels = apply_orientation(np.stack(labels).reshape(shape).T, inverse).reshape(image.shape)
    result = type(image)(np.ascontiguousarray(labels), None, image.header.copy())
    result.header.set_data_dtype(np.uint8)
    result.header.set_slope_inter(1, 0)
    save(result, labels_path)


if __name__ == "__main__":
    nib.imageglobals.logger.disabled = True  # errors in headers are reported once, by the messages above
    main(*sys.argv[1:])
