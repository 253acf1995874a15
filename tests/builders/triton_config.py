"""What an exported Triton configuration should hold, and a parser of config.pbtxt that does not need Triton."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def triton_tensor(spec: Any) -> dict[str, Any]:
    """The expected entry in config.pbtxt for a tensor of the manifest."""
    kinds = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
    dims = [-1 if isinstance(side, str) else side for side in spec.shape[1:]]
    return {"name": spec.name, "data_type": kinds[spec.dtype], "dims": dims}


def parse_pbtxt(text: str) -> Mapping[str, Any]:
    """Parse the subset of protobuf text format that the exported configuration uses."""
    tokens = re.findall(r'"[^"]*"|[\w.-]+|[\[\]{}:,]', text)
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else "}"

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

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
            nested = message()
            assert take() == "}"
            return nested
        token = take()
        assert token not in "]},:"
        return token.strip('"') if not re.fullmatch(r"-?\d+", token) else int(token)

    def message() -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while peek() != "}":
            name = take()
            if peek() == ":":
                take()
            assert name not in fields
            fields[name] = value()
        return fields

    parsed = message()
    assert position == len(tokens)
    return parsed
