"""Whatever the keys in a bucket, no file is written outside its target folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maag.errors import ConfigError, DataError
from maag.storage.keys import file_path, is_uri, readable_key, safe_key, split_uri

PARTS = st.lists(
    st.sampled_from(["a", "..", ".", "", "C:", "\\", "\0", "\n", "ä", "%2e%2e", "~", "a" * 255, "ü" * 128, " "]),
    max_size=5,
)
CHARACTERS = st.text("aC:./\\\0\n\x7f\u2028\ud800 ä心%~", max_size=20)
KEYS = st.one_of(CHARACTERS, PARTS.map("/".join), PARTS.map("".join), PARTS.map("\\".join))


@given(KEYS)
def test_a_safe_key_stays_in_its_folder(key: str) -> None:
    try:
        assert safe_key(key) == key
    except DataError:
        return
    for system in (PurePosixPath, PureWindowsPath):
        parts = (system("root") / key).parts
        assert parts[0] == "root"
        assert ".." not in parts
        assert len(parts) == 1 + len(key.split("/"))
    assert not set(key) & set("\0\n\x7f\u2028\ud800")
    assert all(len(part.encode()) <= 255 for part in key.split("/"))


@given(st.lists(st.text("aZ0äöü心%+#?&=~ ()'!_-", min_size=1, max_size=20), min_size=1, max_size=5))
def test_ordinary_names_are_safe(parts: list[str]) -> None:
    key = "/".join(parts)
    assert safe_key(key) == key
    assert split_uri(f"s3://bucket/{key}") == ("s3://bucket", key)


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("", "it is empty"),
        ("/etc/passwd", "it is absolute"),
        ("a/../b", "'..' for a part"),
        ("./a", "'..' for a part"),
        ("a//b", "a part of it is empty"),
        ("a/", "a part of it is empty"),
        ("..\\a", "a backslash"),
        ("C:a", "a drive letter"),
        ("a\nb", "a control character"),
        ("a\x7f", "a control character"),
        ("a\ud800", "a control character"),
        ("a/" + "ü" * 128, "longer than 255 bytes"),
    ],
)
def test_error_of_an_unsafe_key_names_the_broken_rule(key: str, rule: str) -> None:
    with pytest.raises(DataError) as caught:
        safe_key(key)
    assert rule in str(caught.value)
    assert repr(key) in str(caught.value)


def test_some_unsafe_keys_may_be_read() -> None:
    for key in ("a//b", "a\\b", "C:a", "a" * 1000):
        assert readable_key(key) == key


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/", "s3://bucket", ""),
        ("S3://bucket/a/*.nii.gz", "s3://bucket", "a/*.nii.gz"),
        ("gs://bucket/a b%20?x#y", "gs://bucket", "a b%20?x#y"),
        ("az://container/a//b", "az://container", "a//b"),
        ("file:///data/a%20b/c?.nii", "file:///", "data/a b/c?.nii"),
    ],
)
def test_uri_is_split_into_root_and_key(uri: str, root: str, key: str) -> None:
    assert is_uri(uri)
    assert split_uri(uri) == (root, key)


@pytest.mark.parametrize("place", ["/data", "data/s3", "C:\\data", "C:/data", "s3:/bucket", ""])
def test_path_is_not_a_uri(place: str) -> None:
    assert not is_uri(place)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://host/a", "s3://, gs://, az:// or file:///"),
        ("data", "s3://, gs://, az:// or file:///"),
        ("s3://", "names no bucket; write s3://BUCKET/PREFIX"),
        ("gs:///a", "names no bucket"),
        ("file://host/a", "names the host 'host'; write file:///PATH"),
    ],
)
def test_unsupported_uris_are_refused(uri: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_uri(uri)
    assert words in str(caught.value)


def test_a_file_uri_is_decoded() -> None:
    assert file_path("file:///data/a%20b%23c?d#e") == Path("/data/a b#c?d#e")
    assert file_path("file://localhost/data") == Path("/data")
