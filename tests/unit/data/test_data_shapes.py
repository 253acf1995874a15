"""Masks of another folder for the discriminator: classes matched by name, no patients of the run's split."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from torch import distributed

from maag.config import codec
from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData, data_changed, joined_digest
from maag.data.cache.preparing import prepare
from maag.data.catalog import preset, write_phantom
from maag.data.slices.shapes import prepare_shapes, require_other_patients
from maag.data.slices.supervision import supervise
from maag.data.splits import Split
from maag.errors import ConfigError, MissingDataError, SplitError
from maag.train.launch.recipe import Recipe, prepare_together

ACDC_MYO = 2


def labels_in(prepared: PreparedData) -> set[int]:
    return {int(value) for value in np.unique(prepared.masks)}


@pytest.fixture
def lvsc_data(tiny_config: Config) -> DataConfig:
    """Settings of a run on LVSC, whose classes are background and MYO, on the grid of ACDC's prepared set."""
    overrides = {"data.spacing_mm": tiny_config.data.spacing_mm, "data.size_px": tiny_config.data.size_px}
    return codec.override(preset("lvsc", "fast"), overrides).data


def test_classes_of_another_data_set_are_matched_by_name(
    phantom_dir: Path, prepared: PreparedData, lvsc_data: DataConfig, tmp_path: Path
) -> None:
    shapes = prepare_shapes("acdc", phantom_dir, lvsc_data, tmp_path)
    np.testing.assert_array_equal(shapes.masks == 1, prepared.masks == ACDC_MYO)
    assert labels_in(shapes) == {0, 1}
    assert all(case.raters == () for case in shapes.cases)


@pytest.mark.slow
def test_the_digest_of_shapes_covers_their_class_numbers(
    phantom_dir: Path, tiny_config: Config, tmp_path: Path
) -> None:
    orders = [("background", *names) for names in (("RV", "MYO", "LV"), ("LV", "MYO", "RV"), ("MYO",), ("LV",))]
    found = [
        prepare_shapes("acdc", phantom_dir, replace(tiny_config.data, dataset="folders", classes=classes), tmp_path)
        for classes in orders
    ]
    assert len({shapes.digest for shapes in found}) == len({shapes.directory for shapes in found}) == 4
    np.testing.assert_array_equal(found[0].masks == 1, found[1].masks == 3)
    np.testing.assert_array_equal(found[0].masks == 3, found[3].masks == 1)
    again = prepare_shapes("acdc", phantom_dir, replace(tiny_config.data, dataset="folders"), tmp_path)
    assert again.directory == found[0].directory


def test_shapes_without_a_class_of_the_run_are_refused(phantoms: Path, tiny_config: Config, tmp_path: Path) -> None:
    for name, theirs in (("lvsc", "background, MYO"), ("chaos-ct", "background, liver")):
        with pytest.raises(ConfigError) as caught:
            prepare_shapes(name, phantoms / name, tiny_config.data, tmp_path)
        missing = "RV, LV" if name == "lvsc" else "RV, MYO, LV"
        assert f"{phantoms / name}: it has no class {missing}: its classes are {theirs}, this run's are" in str(
            caught.value
        )


@pytest.mark.slow
def test_a_folder_uses_its_own_classes_or_else_those_of_the_run(tiny_config: Config, tmp_path: Path) -> None:
    root, cache = tmp_path / "hearts", tmp_path / "cache"
    write_phantom("folders", root, 5, seed=4)
    data = replace(tiny_config.data, dataset="folders", unlabelled_value=7)
    plain = prepare_shapes("folders", root, data, cache)
    assert labels_in(plain) == {0, 1, 2, 3}
    (root / "classes.txt").write_text("background\nLV\nMYO\nRV\n")
    reordered = prepare_shapes("folders", root, data, cache)
    np.testing.assert_array_equal(reordered.masks == 3, plain.masks == 1)
    (root / "classes.txt").unlink()
    named = replace(data, classes=("background", "a", "b", "c"))
    np.testing.assert_array_equal(prepare_shapes("folders", root, named, cache).masks, plain.masks)


def test_a_folder_without_masks_is_refused(tiny_config: Config, tmp_path: Path) -> None:
    write_phantom("folders", tmp_path / "hearts", 4, seed=4)
    shutil.rmtree(tmp_path / "hearts" / "masks")
    data = replace(tiny_config.data, dataset="folders")
    with pytest.raises(MissingDataError, match=r"hearts: none of its . cases has a mask"):
        prepare_shapes("folders", tmp_path / "hearts", data, tmp_path / "cache")
    with pytest.raises(MissingDataError, match="no such folder"):
        prepare_shapes("lvsc", tmp_path / "nowhere", data, tmp_path / "cache")


def renamed_copy(phantom_dir: Path, out: Path, patients: Sequence[str], *, recompressed: bool) -> Path:
    """Copy some patients' cases from ACDC's layout to nnU-Net's, under new names."""
    (out / "imagesTr").mkdir(parents=True)
    (out / "labelsTr").mkdir()
    images = [path for patient in patients for path in sorted(phantom_dir.rglob(f"{patient}_frame??.nii.gz"))]
    for number, image in enumerate(images):
        mask = image.with_name(image.name.replace(".nii", "_gt.nii"))
        for source, copy in ((image, f"imagesTr/x{number}_0000.nii.gz"), (mask, f"labelsTr/x{number}.nii.gz")):
            shutil.copy(source, out / copy)
            if recompressed:
                nib.save(nib.load(source), out / copy)
    labels = {"background": 0, "LV": 3, "MYO": 2, "RV": 1}
    (out / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "MRI"}}))
    return out


@pytest.mark.parametrize("part", ["scribbled", "val", "test"])
@pytest.mark.parametrize("recompressed", [False, True])
def test_renamed_patients_of_the_split_are_refused_as_shapes(
    phantom_dir: Path, prepared: PreparedData, split: Split, tiny_config: Config, tmp_path: Path, part: str,
    recompressed: bool,
) -> None:  # fmt: skip
    (patient, *_) = getattr(split, part)
    root = renamed_copy(phantom_dir, tmp_path / "copy", [*split.shapes, patient], recompressed=recompressed)
    shapes = prepare_shapes("nnunet", root, tiny_config.data, tmp_path / "cache")
    with pytest.raises(
        SplitError, match=rf"case x4 is case {patient}_frame\d\d of the .* in {part} of the split; 2 of the 6 cases"
    ):
        require_other_patients(prepared, split, shapes)


def test_patients_in_the_shapes_part_are_accepted_as_shapes(
    phantom_dir: Path, prepared: PreparedData, split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    root = renamed_copy(phantom_dir, tmp_path / "copy", split.shapes, recompressed=False)
    shapes = prepare_shapes("nnunet", root, tiny_config.data, tmp_path / "cache")
    require_other_patients(prepared, split, shapes)
    assert len(supervise(prepared, split, tiny_config, shapes).real) == len(shapes.masks)


@pytest.mark.parametrize("recompressed", [False, True])
def test_masks_of_training_patients_are_recognised_by_their_images(
    phantom_dir: Path, prepared: PreparedData, split: Split, tiny_config: Config, tmp_path: Path, recompressed: bool
) -> None:
    root = renamed_copy(phantom_dir, tmp_path / "copy", split.scribbled, recompressed=recompressed)
    shapes = prepare_shapes("nnunet", root, tiny_config.data, tmp_path / "cache")
    bare = replace(prepared, cases=tuple(replace(case, has_mask=False) for case in prepared.cases))
    with pytest.raises(SplitError, match=r"in scribbled of the split; 4 of the 4 cases"):
        require_other_patients(bare, split, shapes)


def test_empty_masks_and_images_match_no_patient(prepared: PreparedData, split: Split) -> None:
    empty = replace(
        prepared, masks=np.where(prepared.masks == 3, np.uint8(0), 0), images=np.zeros_like(prepared.images)
    )
    other = replace(empty, cases=tuple(replace(case, sha256={"image": case.case_id}) for case in empty.cases))
    require_other_patients(empty, split, other)


@pytest.mark.slow
def test_images_are_recognised_despite_rounding_or_another_normalisation(
    phantom_dir: Path, prepared: PreparedData, split: Split, tiny_config: Config, tmp_path: Path
) -> None:
    root = renamed_copy(phantom_dir, tmp_path / "copy", split.scribbled, recompressed=True)
    bare = replace(prepared, cases=tuple(replace(case, has_mask=False) for case in prepared.cases))
    shapes = prepare_shapes("nnunet", root, tiny_config.data, tmp_path / "cache")
    with pytest.raises(SplitError, match="4 of the 4 cases"):
        require_other_patients(replace(bare, images=bare.images * np.float32(1 + 1e-6)), split, shapes)
    unit = replace(tiny_config.data, normalization="unit")
    in_bytes = prepare(phantom_dir, unit, tmp_path / "cache")
    bare = replace(in_bytes, cases=tuple(replace(case, has_mask=False) for case in in_bytes.cases))
    with pytest.raises(SplitError, match="4 of the 4 cases"):
        require_other_patients(bare, split, prepare_shapes("nnunet", root, unit, tmp_path / "cache"))


def test_digests_of_an_earlier_version_do_not_count_as_changed_data(
    phantom_dir: Path, prepared: PreparedData, tiny_config: Config, tmp_path: Path
) -> None:
    shapes = prepare_shapes("acdc", phantom_dir, tiny_config.data, tmp_path)
    now = joined_digest(prepared, shapes)
    assert not data_changed(now, now)
    assert not data_changed(f"{prepared.digest}+sha256-0123456789abcdef", now)
    assert not data_changed(f"08f8cbb0784f61f8+{shapes.digest}", now)
    for others in (
        f"sha256-0123456789abcdef+{shapes.digest}",
        "sha256-0123456789abcdef+sha256-0123456789abcdef",
        f"{prepared.digest}+shapes-sha256-0123456789abcdef",
        prepared.digest,
    ):
        assert data_changed(others, now)


@pytest.mark.slow
def test_cluster_workers_prepare_the_same_shapes(
    phantom_dir: Path, copy_of: Callable[[str], Path], lvsc_data: DataConfig, split: Split, tmp_path: Path
) -> None:
    config = replace(Config(), data=lvsc_data)
    expected = prepare_shapes("acdc", phantom_dir, lvsc_data, tmp_path / "cache")
    recipe = Recipe(
        config=codec.to_dict(config), split=split.to_dict(), data_dir=str(copy_of("lvsc")), scribbles=(),
        shapes=("acdc", str(phantom_dir)), cache_root=str(tmp_path / "cache"), threads=1,
    )  # fmt: skip
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        found = prepare_together(recipe, config, split).shapes
    finally:
        distributed.destroy_process_group()
    assert found is not None
    assert found.directory == expected.directory
