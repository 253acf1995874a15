"""Error messages for invalid settings that need no knowledge of Python, with an example to paste."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from maag.config.schema import Config

_LIMIT_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")
"""pydantic's error types whose messages are clear as they are."""
_WORDS: Mapping[str, tuple[str, str]] = {
    "number": ("a number", "numbers"),
    "integer": ("a whole number", "whole numbers"),
    "boolean": ("true or false", "true or false"),
    "string": ("text", "names"),
    "null": ("null", "null"),
}
"""By JSON type: singular and plural."""
_SWITCHES = ("loss.class_weights",)
"""Numbers that may also be true or false, as earlier versions wrote them."""
_LONGEST_VALUE = 80
_MIN_SIMILARITY = 0.75
"""Of a suggested name: twice the number of letters in common over the number of letters of both."""


@cache
def setting_schemas() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The JSON schema of each setting, by section and name."""
    schema = TypeAdapter(Config).json_schema()
    sections = {name: known["$ref"].rpartition("/")[2] for name, known in schema["properties"].items()}
    return {name: schema["$defs"][kind]["properties"] for name, kind in sections.items()}


def unknown_setting(path: str) -> str:
    """The message for an unknown setting `path`, with a suggestion of the same or a similar name in any section."""
    section, _, name = path.rpartition(".")
    known = [(other, each) for other, settings in setting_schemas().items() for each in settings]
    near = [name, *get_close_matches(name, [each for _, each in known], cutoff=_MIN_SIMILARITY)]
    # The same section first, then the most similar name.
    found = sorted((other != section, near.index(each), f"{other}.{each}") for other, each in known if each in near)
    question = f"did you mean {found[0][2]}? " if found else ""
    return f"{path}: no such setting; {question}`maag config show` lists them all"


def explain(error: ValidationError) -> str:
    """The messages of a validation error; of a setting with a wrong type only the first."""
    problems = {}
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "unexpected_keyword_argument":
            problems[path] = unknown_setting(path)
        elif problem["type"] == "value_error":
            # A rule across sections names its settings itself.
            problems[path] = f"{path}.{message}" if path else message
        elif problem["type"] in _LIMIT_ERRORS:
            problems[path] = f"{path}: {message[0].lower()}{message[1:]}, got {_shown(problem['input'])}"
        else:
            # For a missing item, the input is the whole list.
            item = problem["loc"][2:] if problem["type"] != "missing" else ()
            setting = [str(part) for part in problem["loc"][:2]]
            problems.setdefault(".".join(setting), _wrong_type(setting, problem["input"], item))
    return "; ".join(problems.values())


def booleans_for_numbers(plain: Mapping[str, Any]) -> str:
    """The messages for booleans in place of numbers, which pydantic would accept as 1 or 0; empty if there are none."""
    problems = []
    for section, settings in setting_schemas().items():
        given = plain.get(section)
        if not isinstance(given, Mapping):
            continue
        for name, value in given.items():
            if f"{section}.{name}" in _SWITCHES or not _holds_numbers(settings.get(name, {})):
                continue
            if isinstance(value, bool):
                problems.append(_wrong_type([section, name], value))
            elif isinstance(value, list | tuple):
                places = [place for place, item in enumerate(value) if isinstance(item, bool)]
                problems += [_wrong_type([section, name], value[place], (place,)) for place in places]
    return "; ".join(problems)


def _wrong_type(path: list[str], value: Any, item: tuple[int | str, ...] = ()) -> str:
    section, *names = path
    if not names:
        name, known = next(iter(setting_schemas()[section].items()))
        example = json.dumps({name: known["default"]})
        return f"{section}: expected settings by name, such as {example}, got {_shown(value)}"
    known = setting_schemas()[section][names[0]]
    default = known.get("examples", [known["default"]])[0]
    value_text = default if isinstance(default, str) else json.dumps(default, separators=(",", ":"), ensure_ascii=False)
    whole = f"{section}.{names[0]}"
    where = f" as item {int(item[0]) + 1}" if item else ""
    example = shlex.quote(f"{whole}={value_text}")
    return f"{whole}: expected {_expected(known)}, such as {example}, got {_shown(value)}{where}"


def _expected(known: Mapping[str, Any]) -> str:
    if "enum" in known:
        return f"one of {', '.join(known['enum'])}"
    if "anyOf" in known:
        return " or ".join(_expected(choice) for choice in known["anyOf"])
    if known["type"] != "array":
        return _WORDS[known["type"]][0]
    _, several = _WORDS[_items(known)["type"]]
    fewest, most = known.get("minItems", 0), known.get("maxItems")
    return f"a list of {f'{fewest} ' if fewest == most else f'{fewest} or more ' if fewest else ''}{several}"


def _holds_numbers(known: Mapping[str, Any]) -> bool:
    if "anyOf" in known:
        return any(_holds_numbers(choice) for choice in known["anyOf"])
    if known.get("type") == "array":
        return _holds_numbers(_items(known))
    return known.get("type") in ("number", "integer")


def _items(known: Mapping[str, Any]) -> Mapping[str, Any]:
    items: Mapping[str, Any] = known.get("items") or known["prefixItems"][0]
    return items


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
