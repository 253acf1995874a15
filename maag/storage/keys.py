"""Object keys: which may be requested, which may become file names, and how a URI is split."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from maag.errors import ConfigError, DataError

LONGEST_PART = 255
"""Bytes that common file systems allow in a name."""
CLOUDS = ("s3", "gs", "az")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")


def safe_key(key: str) -> str:
    """The key itself, if a file of that name stays inside the folder it is written to, on every operating system.

    Raises:
        DataError: a part is '..', '.', empty or longer than 255 bytes; the key is absolute, begins with a drive letter,
            or contains a backslash or a control character.
    """
    _require_parts(key)
    if "\\" in key:
        raise _refusal(key, "a backslash separates folders on some systems")
    if _DRIVE.match(key):
        raise _refusal(key, "it begins with a drive letter")
    for part in key.split("/"):
        if not part:
            raise _refusal(key, "a part of it is empty")
        if len(part.encode()) > LONGEST_PART:
            raise _refusal(key, f"a part of it is longer than {LONGEST_PART} bytes")
    return key


def readable_key(key: str) -> str:
    """The key itself, if a request for it cannot address another object. Raises DataError."""
    _require_parts(key)
    return key


def is_uri(place: str) -> bool:
    """Whether a place is written as `scheme://…`, whatever the scheme."""
    return _SCHEME.match(place) is not None


def split_uri(uri: str) -> tuple[str, str]:
    """The root of the store (`s3://bucket`, `file:///`) and the key or pattern below it, without a leading `/`.

    Keys in buckets are taken literally, including `%`, `?` and `#`; those of `file:///` are percent-decoded.

    Raises:
        ConfigError: the scheme is unknown, or no bucket is named.
    """
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else ""
    if found is None or scheme not in (*CLOUDS, "file"):
        raise ConfigError(f"cannot read {uri!r}: give a path, or a URI with s3://, gs://, az:// or file:///")
    if scheme == "file":
        return "file:///", file_path(uri).as_posix().lstrip("/")
    bucket, _, key = uri[found.end() :].partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket; write {scheme}://BUCKET/PREFIX")
    return f"{scheme}://{bucket}", key


def file_path(uri: str) -> Path:
    """The path of a `file:///` URI. Raises ConfigError if it names another host."""
    parts = urlsplit(quote(uri, safe="/:%"))
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{uri!r} names the host {parts.netloc!r}; write file:///PATH, with three slashes")
    return Path(url2pathname(parts.path))


def _require_parts(key: str) -> None:
    if not key:
        raise _refusal(key, "it is empty")
    if key.startswith("/"):
        raise _refusal(key, "it is absolute")
    if _CONTROL.search(key):
        raise _refusal(key, "it contains a control character")
    if any(part in (".", "..") for part in key.split("/")):
        raise _refusal(key, "it has '.' or '..' for a part")


def _refusal(key: str, reason: str) -> DataError:
    return DataError(f"the key {key!r} is refused: {reason}; rename the object")
