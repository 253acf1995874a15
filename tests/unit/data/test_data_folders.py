"""Data in plain folders: the table of cases and the list of classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from phantom_datasets import config_of, first_match

from maag.data.catalog import find_cases, preset, reader_of
from maag.data.check import check
from maag.errors import ConfigError, DataError


def test_the_case_table_assigns_raters_splits_and_supervision(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    scribble = root / "scribbles" / "heart_000_scribble.nii.gz"
    for rater in ("ann", "bob"):
        (root / "scribbles" / rater).mkdir()
        shutil.copy(scribble, root / "scribbles" / rater / "heart_000.nii.gz")
    scribble.unlink()
    (root / "cases.csv").write_text(
        "case,patient,split,supervision,rater\nheart_000,p1,train,,ann\nheart_000,p1,train,,bob\n"
        "heart_003,p1,train,unlabelled,\nheart_002,p2,val,,\n"
    )
    cases = {case.case_id: case for case in find_cases(config_of("folders", root).data, root)}
    assert [scribble.rater for scribble in cases["heart_000"].scribbles] == ["ann", "bob"]
    assert cases["heart_000"].patient_id == cases["heart_003"].patient_id == "p1"
    assert cases["heart_003"].scribbles == ()
    assert cases["heart_002"].part == "val"
    assert cases["heart_004"].masks == ()


def test_frames_belong_to_one_patient_unless_the_case_table_says_otherwise(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    for number, name in enumerate(("anna_frame01", "anna_frame12")):
        (root / "images" / f"heart_00{number}.nii.gz").rename(root / "images" / f"{name}.nii.gz")
        for file in (*root.glob(f"scribbles/heart_00{number}*"), *root.glob(f"masks/heart_00{number}*")):
            file.rename(file.with_name(file.name.replace(f"heart_00{number}", name)))

    def patients() -> list[str]:
        return [
            case.patient_id
            for case in find_cases(config_of("folders", root).data, root)
            if case.case_id.startswith("anna")
        ]

    (root / "cases.csv").unlink(missing_ok=True)
    assert patients() == ["anna", "anna"]
    (root / "cases.csv").write_text("case,patient\nanna_frame12,berta\n")
    assert patients() == ["anna", "berta"]


def test_a_missing_unlabelled_value_is_refused(phantoms: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not set; set it with --set data\.unlabelled_value=N"):
        check(phantoms / "folders", preset("folders", "fast", phantoms / "folders").data)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("case,colour\nheart_000,red\n", "columns case, colour; expected case"),
        ("case,rater,rater\nheart_000,ann,bob\n", "column rater is there twice, and only one would count"),
        ("case\nnobody\n", "line 2: case 'nobody' has no image"),
        ("case,split\nheart_000,fold1\n", "line 2: split 'fold1'; it must be one of train, val, test"),
        ("case,supervision\nheart_000,guess\n", "line 2: supervision 'guess'"),
        ("case,patient\nheart_000,a\nheart_000,b\n", "line 3: patient of case heart_000 is b, but a in an earlier"),
        (
            "case,supervision\nheart_000,masks\nheart_000,scribbles\n",
            "line 3: supervision of case heart_000 is scribbles, but masks in an earlier line; a case has one "
            "supervision",
        ),
        ("case,patient\nheart_000,a,b\n", "line 2: 3 cells for 2 columns; put a cell with a comma in quotes"),
        (f"case\n{'x' * 200_000}\n", "not a readable table .field larger than field limit"),
        ("", "columns ; expected case"),
        (
            "case,patient,split\nheart_000,a,train\nheart_002,a,val\n",
            "patient a has case heart_000 in train, case heart_002 in val; all cases of a patient belong in one part",
        ),
        ("case,rater\nheart_000,anna\n", "case heart_000 has no scribble by rater anna, only by scribbles"),
        ("case,rater\nheart_001,anna\n", "case heart_001 has no scribble by rater anna, nor by any other; a rater is"),
    ],
)
def test_an_invalid_case_table_is_refused(copy_of: Callable[[str], Path], content: str, sentence: str) -> None:
    root = copy_of("folders")
    (root / "cases.csv").write_text(content)
    with pytest.raises(DataError, match=sentence):
        find_cases(config_of("folders", root).data, root)


def test_the_case_table_ignores_blanks_and_empty_cells(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    (root / "cases.csv").write_text(
        "case, patient ,split\nheart_000, a, train\n\n,,\nheart_002,a ,train,,\nheart_003\n"
    )
    cases = {case.case_id: case for case in find_cases(config_of("folders", root).data, root)}
    assert [cases[f"heart_00{n}"].patient_id for n in (0, 2, 3)] == ["a", "a", "heart_003"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["classes.txt", "cases.csv"])
def test_text_files_not_in_utf_8_are_refused(copy_of: Callable[[str], Path], name: str, encoding: str) -> None:
    root = copy_of("folders")
    data = config_of("folders", root).data
    text = {"classes.txt": "background\nfígado\n", "cases.csv": "case,patient\nheart_000,José\n"}[name]
    (root / name).write_text(text, encoding="utf-8-sig")
    reader_of("folders").settings(root)
    find_cases(data, root)
    (root / name).write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=rf"{name}: .*; save it as UTF-8"):
        reader_of("folders").settings(root) if name == "classes.txt" else find_cases(data, root)


def test_a_byte_order_mark_is_not_part_of_a_class_name(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    (root / "classes.txt").write_text("background\nleaf\n", encoding="utf-8-sig")
    assert reader_of("folders").settings(root)["data.classes"] == ["background", "leaf"]


@pytest.mark.parametrize(("text", "found"), [("wall\npool\n", "wall"), ("\n", "missing")])
def test_a_class_list_not_starting_with_background_is_refused(
    copy_of: Callable[[str], Path], text: str, found: str
) -> None:
    root = copy_of("folders")
    (root / "classes.txt").write_text(text)
    with pytest.raises(
        DataError, match=rf"classes\.txt: the first class is {found}; the first line must be background"
    ):
        reader_of("folders").settings(root)


def test_a_label_without_an_image_is_refused(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("folders")
    shutil.copy(first_match(root, "masks/*"), root / "masks" / "stranger.nii.gz")
    with pytest.raises(DataError, match="there is no image stranger in images/; name it like its image"):
        find_cases(config_of("folders", root).data, root)
