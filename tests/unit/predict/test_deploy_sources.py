"""Which images the inputs name, and where their labels go."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from folder_bucket import serve_as_bucket
from hypothesis import given
from hypothesis import strategies as st
from threshold_runner import write_volume

from deploy.inputs.patterns import pattern_of
from deploy.inputs.sources import find_sources
from deploy.predicting.batch import plan
from maag.errors import ConfigError, MissingDataError, MissingObjectError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("a1.png", "a2.png", "b.png", "sub/a3.png", "sub/b.png", "[x].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def targets(*inputs: str | Path) -> list[str]:
    return sorted(source.target for source in find_sources(inputs))


def test_targets_of_a_pattern_are_relative_to_its_literal_prefix(pictures: Path) -> None:
    assert targets(pictures / "a*.png") == ["a1.png", "a2.png"]
    assert targets(pictures / "**" / "a*.png") == ["a1.png", "a2.png", "sub/a3.png"]
    assert targets(pictures / "*" / "b.png", pictures / "b.png") == ["b.png", "sub/b.png"]
    assert targets(pictures / "s*") == ["sub/a3.png", "sub/b.png"]
    assert targets(pictures / "[x].png") == ["[x].png"]
    with pytest.raises(MissingDataError, match="no file or folder matches this pattern"):
        targets(pictures / "z*.png")


def test_a_pattern_skips_masks_unless_it_matches_only_masks(pictures: Path) -> None:
    (pictures / "a1_gt.png").write_bytes(b"")
    assert targets(pictures / "a*.png") == ["a1.png", "a2.png"]
    assert targets(pictures / "*_gt.png") == ["a1_gt.png"]


def test_a_relative_pattern_matches_in_the_working_directory(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    assert targets("a*.png", "sub/*3.png") == ["a1.png", "a2.png", "a3.png"]


def test_paths_in_a_list_are_relative_to_the_list(pictures: Path) -> None:
    (pictures / "list.txt").write_text(f"# three of them\nb.png\n\nsub/a*.png\n{pictures / 'a1.png'}\n")
    assert targets(pictures / "list.txt") == ["a1.png", "a3.png", "b.png"]
    with pytest.raises(MissingDataError, match="no such file"):
        targets(pictures / "nowhere.txt")


def test_invalid_lists_and_empty_inputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b.txt\n")
    (tmp_path / "b.txt").write_text("a.txt\n")
    with pytest.raises(ConfigError, match="the list contains itself"):
        targets(tmp_path / "a.txt")
    (tmp_path / "d.txt").write_text("# nothing new\n\n")
    with pytest.raises(ConfigError, match=r"d\.txt: the list names no input"):
        targets(tmp_path / "d.txt")
    with pytest.raises(ConfigError, match="an input is empty"):
        targets("")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="must be UTF-8"):
        targets(tmp_path / "c.txt")


def test_a_file_uri_names_a_path_and_unknown_schemes_are_refused(pictures: Path) -> None:
    assert targets(f"file://{pictures}/sub") == ["a3.png", "b.png"]
    with pytest.raises(ConfigError, match="s3://, gs://, az://"):
        targets("ftp://host/scans")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("scans[1]/a.png", "scans1/b.png", "scans2/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    serve_as_bucket(monkeypatch, tmp_path)
    return tmp_path


def test_a_bucket_key_takes_precedence_over_the_pattern_it_resembles(bucket: Path) -> None:
    assert targets("s3://bkt/scans[1]") == targets("s3://bkt/scans[1]/") == ["a.png"]
    assert targets("s3://bkt/scans[2]") == ["scans2/c.png"]
    assert targets("s3://bkt/scans[1]/a.png") == ["a.png"]
    plan(["s3://bkt/scans[1]"], "s3://bkt/scans1/labels")
    with pytest.raises(ConfigError, match="is inside the input"):
        plan(["s3://bkt/scans[1]"], "s3://bkt/scans[1]/labels")
    with pytest.raises(ConfigError, match="is inside the input"):
        plan(["s3://bkt/scans[2]"], "s3://bkt/scans2/labels")


def test_an_object_replaced_after_listing_is_fetched_in_its_new_version(bucket: Path, tmp_path: Path) -> None:
    original = write_volume(bucket / "scans2" / "v.nii", 1)
    (source,) = find_sources(["s3://bkt/scans2/v.nii"])
    listed = source.version()
    (tmp_path / "scratch").mkdir()
    unchanged = source.fetch(tmp_path / "scratch", listed)
    assert unchanged.version == listed
    original.unlink()
    replaced = write_volume(original, 2).read_bytes() + b"longer"
    original.write_bytes(replaced)
    fetched = source.fetch(tmp_path / "scratch", listed)
    assert fetched.image.place.read_bytes() == replaced
    assert fetched.version not in (listed, "")
    assert fetched.version == next(find_sources(["s3://bkt/scans2/v.nii"])).version()
    original.unlink()
    with pytest.raises(MissingObjectError):
        source.fetch(tmp_path / "scratch", listed)


@pytest.mark.parametrize("given", ["S3://bkt/scans1", "S3://bkt/scans?", "S3://bkt/scans1/b.png"])
def test_an_uppercase_scheme_names_the_same_location(bucket: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="is inside the input"):
        plan([given], "s3://bkt/scans1/b.png" if given.endswith(".png") else "s3://bkt/scans1/labels")
    with pytest.raises(ConfigError, match="is inside the input"):
        plan([given.lower()], "S3://bkt/scans1/b.png" if given.endswith(".png") else "S3://bkt/scans1/labels")


def test_an_uppercase_file_uri_names_the_same_path(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="is inside the input"):
        plan([f"FILE://{pictures}/sub"], pictures / "sub" / "labels")


NAMES = st.text("ab[]*.-", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_an_escaped_pattern_matches_only_its_own_key(parts: list[str]) -> None:
    key = "/".join(parts)
    pattern = pattern_of("/".join(glob.escape(part) for part in parts))
    assert pattern.fullmatch(key)
    assert not pattern.fullmatch(f"{key}x")


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("in/*.nii", ["in/a.nii", "in/.nii"], ["in/deep/a.nii", "in/a.nii.gz"]),
        ("in/**/a?.nii", ["in/a1.nii", "in/x/y/a2.nii"], ["in/a.nii", "out/a1.nii"]),
        ("in/[!ab]*", ["in/c.nii"], ["in/a.nii", "in/c/d.nii"]),
        ("in/**", ["in/a", "in/b/c"], ["out/a"]),
    ],
)
def test_key_patterns_match_like_shell_patterns(pattern: str, matched: list[str], others: list[str]) -> None:
    assert [key for key in (*matched, *others) if pattern_of(pattern).fullmatch(key)] == matched
