"""Conversion of configurations: dictionaries, files, dotted overrides, digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from maag.config.complaints import booleans_for_numbers, explain, setting_schemas, unknown_setting
from maag.config.schema import Config
from maag.errors import ConfigError

FORMAT_VERSION = 1
_ADAPTER = TypeAdapter(Config)
_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


class Setting(NamedTuple):
    """One leaf of the configuration."""

    path: str
    type: str
    value: Any
    help: str


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON types; the inverse of `from_dict`."""
    plain: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return plain


def from_dict(plain: Mapping[str, Any]) -> Config:
    """Validate and build a configuration from plain types. Raises ConfigError naming the dotted setting."""
    if problems := booleans_for_numbers(plain):
        raise ConfigError(problems)
    try:
        return _ADAPTER.validate_python(dict(plain))
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def from_document(plain: Any, source: str) -> Config:
    """Validate and build the configuration in the parsed `config.json` called `source`. Raises ConfigError."""
    if not isinstance(plain, dict):
        raise ConfigError(f"{source}: a configuration is a JSON object of sections, got {type(plain).__name__}")
    version = plain.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ConfigError(f"{source}: format_version {version} is unknown; this maag reads {FORMAT_VERSION}")
    try:
        return from_dict({key: value for key, value in plain.items() if key != "format_version"})
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def document(config: Config) -> dict[str, Any]:
    """The content of a `config.json`: the settings and the format version."""
    return {"format_version": FORMAT_VERSION, **to_dict(config)}


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with dotted settings changed, for `--set` and search samples alike.

    Args:
        config: the base.
        changes: `{"optim.lr": 3e-4}`; a string that is valid JSON is parsed: `"[0, 1]"`, `"true"`, `"3e-4"`.

    Raises:
        ConfigError: an unknown setting, or a value outside its type or limits.
    """
    plain = to_dict(config)
    for path, value in changes.items():
        section, _, name = path.partition(".")
        if name not in plain.get(section, {}):
            raise ConfigError(unknown_setting(path))
        plain[section][name] = _parsed(value) if isinstance(value, str) else value
    return from_dict(plain)


def leaves(config: Config) -> list[Setting]:
    """Every setting with its dotted path, type and limits, value and help, in the order of the schema."""
    plain = to_dict(config)
    return [
        Setting(f"{section}.{name}", _type_name(known), plain[section][name], known.get("description", ""))
        for section, settings in setting_schemas().items()
        for name, known in settings.items()
    ]


def digest(config: Config) -> str:
    """12 hexadecimal digits that change when any setting does."""
    return digest_of_plain(to_dict(config))


def digest_of_plain(plain: Mapping[str, Any]) -> str:
    """The digest of a configuration as a file holds it; the file may be older than some settings."""
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _type_name(known: Mapping[str, Any]) -> str:
    """A JSON schema's type and limits in words: `number > 0`, `a | b`, `list of integer >= 0 <= 3`."""
    if "enum" in known:
        return " | ".join(known["enum"])
    if "const" in known:
        return str(known["const"])
    if "anyOf" in known:
        return " | ".join(_type_name(choice) for choice in known["anyOf"])
    if known["type"] == "array":
        items = known.get("items") or known["prefixItems"][0]
        return f"list of {_type_name(items)}"
    limits = (f"{sign} {known[name]:g}" for name, sign in _LIMITS.items() if name in known)
    return " ".join([known["type"], *limits])
