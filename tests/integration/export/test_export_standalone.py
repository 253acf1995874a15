"""The program beside an exported model needs no maag, and agrees voxel for voxel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from deploy.artifact.manifest import Source
from deploy.exporting.onnx_export import export
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from deploy.runners.opening import open_artifact
from maag.config.codec import override
from maag.config.schema import Config
from maag.models.build import build_segmentor

pytestmark = pytest.mark.integration
BLOCK = """
import json, runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("maag", "deploy", "tune", "torch", "monai", "pydantic", "click"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
program = sys.argv[1]
"""
"""Of a process that can import neither maag nor its dependencies."""
ONCE = f"""{BLOCK}
sys.argv = sys.argv[1:]
runpy.run_path(program, run_name="__main__")
"""
OFTEN = f"""{BLOCK}
ends = []
for words in json.loads(sys.argv[2]):
    sys.argv = [program, *words]
    try:
        runpy.run_path(program, run_name="__main__")
        ends.append(None)
    except SystemExit as end:
        ends.append(end.code)
print(json.dumps(ends))
"""


def segment_alone(artifact: Path, *lines: list[Path]) -> list[str | None]:
    """What the program ended with, for each line of arguments; one process, as each takes a second to start."""
    words = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", OFTEN, str(artifact / "segment.py"), words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ends: list[str | None] = json.loads(done.stdout)
    return ends


@pytest.mark.parametrize(
    ("kind", "same_voxels"),
    # In int8 the last bit of an intensity may turn a rounding, which moves single voxels along borders.
    [("artifact", 1.0), ("dynamic_size_artifact", 1.0), ("int8_artifact", 0.97)],
)
def test_standalone_program_needs_no_maag_and_agrees_voxel_for_voxel(
    kind: str, same_voxels: float, request: pytest.FixtureRequest, config: Config, tmp_path: Path
) -> None:
    artifact: Path = request.getfixturevalue(kind)
    random = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    opened = open_artifact(artifact, "cpu")
    for name, shape, spacing in (
        ("larger", (90, 80, 3), (1.4, 1.7, 8.0)),
        ("smaller", (20, 31, 2), (1.1, 1.2, 5.0)),
        ("as it is", (32, 48, 1), (2.0, 2.0, 10.0)),
        ("mixed", (101, 17, 2), (0.9, 3.3, 1.0)),
        ("one slice", (40, 33), (1.3, 1.2, 1.0)),
        ("cine", (26, 30, 2, 3), (1.5, 1.5, 9.0)),
    ):
        smooth = np.cumsum(np.cumsum(random.normal(size=shape), axis=0), axis=1).astype(np.float32)
        image = nibabel.Nifti1Image(smooth, np.diag([*spacing, 1.0]))
        nibabel.save(image, tmp_path / "in" / f"{name}.nii.gz")
    # The last image again, with its spacing in metres.
    image = nibabel.Nifti1Image(smooth, np.diag([*(mm / 1000 for mm in spacing), 1.0]))
    image.header.set_xyzt_units("meter", "sec")
    nibabel.save(image, tmp_path / "in" / "metres.nii.gz")
    predict([tmp_path / "in"], Threads(opened.runner), config.data, tmp_path / "out", opened.digest)
    labels = {source: tmp_path / f"alone-{source.name}" for source in sorted((tmp_path / "in").iterdir())}
    assert len(labels) == 7
    assert segment_alone(artifact, *([source, alone] for source, alone in labels.items())) == [None] * 7
    for source, alone in labels.items():
        one, other = nibabel.load(alone), nibabel.load(tmp_path / "out" / source.name)
        assert (np.asarray(one.dataobj) == np.asarray(other.dataobj)).mean() >= same_voxels, source.name
        np.testing.assert_array_equal(one.affine, other.affine)
        assert len(np.unique(one.dataobj)) > 1


def test_multi_channel_model_works_as_its_readme_describes(config: Config, tmp_path: Path) -> None:
    two = override(config, {"data.channels": 2, "data.dataset": "nnunet"})
    torch.manual_seed(3)
    segmentor = build_segmentor(two)
    for _ in range(5):
        segmentor(torch.randn(4, 2, 48, 32))
    artifact = tmp_path / "two"
    export(segmentor, two, artifact, Source(checkpoint="best.safetensors", sha256="00"))
    readme = (artifact / "README.md").read_text()
    assert "python segment.py IMAGE_0000.nii.gz IMAGE_0001.nii.gz LABELS.nii.gz" in readme
    assert "`X_0000.nii.gz`, `X_0001.nii.gz` are the channels of one image, whose labels are `X.nii.gz`" in readme
    random = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for name, shape in (("volume", (60, 50, 3)), ("cine", (40, 33, 2, 2)), ("slice", (41, 30))):
        for channel in range(2):
            smooth = np.cumsum(np.cumsum(random.normal(size=shape), axis=0), axis=1).astype(np.float32)
            image = nibabel.Nifti1Image(smooth, np.diag([1.4, 1.7, 8.0, 1.0]))
            nibabel.save(image, tmp_path / "in" / f"{name}_{channel:04}.nii.gz")
    opened = open_artifact(artifact, "cpu")
    outcome = predict([tmp_path / "in"], Threads(opened.runner), two.data, tmp_path / "out", opened.digest)
    assert (outcome.done, outcome.failed) == (3, ())
    lines = {}
    for name in ("volume", "cine", "slice"):
        channels = [tmp_path / "in" / f"{name}_{channel:04}.nii.gz" for channel in range(2)]
        lines[name] = [*channels, tmp_path / f"alone-{name}.nii.gz"]
        lines[f"swapped {name}"] = [*channels[::-1], tmp_path / f"swapped-{name}.nii.gz"]
    assert segment_alone(artifact, *lines.values()) == [None] * 6
    for name in ("volume", "cine", "slice"):
        one, other = nibabel.load(tmp_path / f"alone-{name}.nii.gz"), nibabel.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
        assert len(np.unique(one.dataobj)) > 1
        swapped = nibabel.load(tmp_path / f"swapped-{name}.nii.gz")
        assert (np.asarray(swapped.dataobj) != np.asarray(other.dataobj)).any()
    before = channels[1].read_bytes()
    program = [sys.executable, "-c", ONCE, str(artifact / "segment.py")]
    done = subprocess.run([*program, *channels, channels[1]], capture_output=True, text=True)
    assert (done.returncode, channels[1].read_bytes() == before) == (1, True)
    assert "the labels would overwrite the image" in done.stderr
    alone = tmp_path / "alone.nii.gz"
    wrong = ([channels[0]], [], [*channels, channels[0]])
    other_grid = [channels[0], tmp_path / "in" / "volume_0001.nii.gz"]
    *of_wrong, of_other_grid = segment_alone(artifact, *([*words, alone] for words in (*wrong, other_grid)))
    for words, end in zip(wrong, of_wrong, strict=True):
        assert f"{len(words)} images and a path for the labels were given; this model takes 2" in str(end)
    assert "not on the grid of" in str(of_other_grid)
    assert not alone.exists()
