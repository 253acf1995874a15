"""Triton's config.pbtxt, read without Triton."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def triton_tensor(spec: Any) -> dict[str, Any]:
    """What the configuration must say of a tensor of the manifest."""
    kinds = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
    dims = [-1 if isinstance(side, str) else side for side in spec.shape[1:]]
    return {"name": spec.name, "data_type": kinds[spec.dtype], "dims": dims}


def parsed_pbtxt(text: str) -> Mapping[str, Any]:
    """Protocol buffers' text format, as far as Triton's configuration here uses it."""
    words = re.findall(r'"[^"]*"|[\w.-]+|[\[\]{}:,]', text)
    place = 0

    def peek() -> str:
        return words[place] if place < len(words) else "}"

    def take() -> str:
        nonlocal place
        place += 1
        return words[place - 1]

    def value() -> Any:
        if peek() == "[":
            take()
            items = []
            while peek() != "]":
                items.append(value())
                if peek() == ",":
                    take()
            take()
            return items
        if peek() == "{":
            take()
            made = message()
            assert take() == "}"
            return made
        word = take()
        assert word not in "]},:"
        return word.strip('"') if not re.fullmatch(r"-?\d+", word) else int(word)

    def message() -> dict[str, Any]:
        made: dict[str, Any] = {}
        while peek() != "}":
            name = take()
            if peek() == ":":
                take()
            assert name not in made
            made[name] = value()
        return made

    parsed = message()
    assert place == len(words)
    return parsed
