"""A stand-in for TensorRT, generated from its recorded API, that refuses everything else.

Names, arity, keywords, types and enum members come from `tests/contracts/tensorrt.json`. Engines run on ONNX Runtime:
a "plan" holds the ONNX graph, and an engine runs it on the memory at the addresses that it is given, so that a wrong
address, shape or type gives wrong numbers here too. It tests that calls match the real API, and nothing about TensorRT
itself.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tensorrt_behaviour import BEHAVIOUR

API: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "contracts" / "tensorrt.json").read_text())
VERSIONS = tuple(version for version in API if version != "about")

_ALIASES = {"IParserError": "ParserError"}
_PLAIN: dict[str, tuple[type, ...]] = {
    "typing.SupportsInt": (int, np.integer),
    "int": (int, np.integer),
    "str": (str,),
    "bool": (bool,),
    "tuple": (tuple,),
    "list": (list,),
    "Dims": (tuple, list),
    "typing_extensions.Buffer": (bytes, bytearray, memoryview),
}
_DEFAULTS = {"bool": True, "int": 0, "str": "", "None": None}


class TensorRTStandIn:
    """The module `tensorrt` of one version, limited to what the contract lists.

    `fail` selects what fails: "start" (no builder and no runtime), "build" or "context" (None instead of an
    object), "enqueue" (False), "numbers" or "fp16 numbers" (probabilities of 0, in every engine or in those of fp16).
    """

    def __init__(self, version: str, fail: str = "") -> None:
        self.fail = fail
        self.config_calls: list[tuple[str, Any]] = []
        self.deserialized = 0
        self._api = API[version]
        self._made: dict[str, Any] = {}
        for name, entry in self._api.items():
            if entry["__kind__"] == "value":
                self._made[name] = entry["value"]
            elif entry["__kind__"] == "enum":
                self._made[name] = _Member(name, entry["__members__"])  # type: ignore[call-arg]
        for name, entry in self._api.items():
            if entry["__kind__"] == "class":
                self._made[name] = _class_of(name, entry, self)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_made"][name]
        except KeyError:
            raise AttributeError(f"TensorRT {self.__dict__['_made']['__version__']} has no {name}") from None


class _Member(enum.Enum):
    """Like pybind11's enums: only int() converts it, so that `1 << member` fails here as well."""

    def __int__(self) -> int:
        return int(self.value)


def _class_of(name: str, entry: dict[str, Any], module: TensorRTStandIn) -> type:
    namespace: dict[str, Any] = {"__setattr__": _checked_setattr}
    for member, described in entry.items():
        if member == "__kind__":
            continue
        if isinstance(described, str) and described.startswith("property"):
            namespace[member] = _property_of(name, member, described, module)
        elif isinstance(described, str) and described.startswith("value "):
            namespace[member] = module._made[f"{name}.{described.removeprefix('value ')}"][member]
        elif isinstance(described, str) and described.startswith("class "):
            namespace[member] = module._made[described.removeprefix("class ")]
        else:
            signatures = [described] if isinstance(described, str) else described
            namespace[member] = _method_of(name, member, signatures, module)
    if name == "IHostMemory":  # Introspection does not show its buffer protocol.
        namespace["__bytes__"] = lambda self: bytes(self.__dict__["content"])
    namespace.setdefault("__init__", _no_constructor)
    return type(name, (), namespace)


def _no_constructor(self: Any, *args: Any, **keywords: Any) -> None:
    raise TypeError(f"{type(self).__name__}: no constructor defined")


def _checked_setattr(self: Any, name: str, value: Any) -> None:
    own = type(self).__dict__.get(name)
    if isinstance(own, property) and own.fset is None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")
    # Python subclasses of the bound classes may have attributes of their own.
    if type(self).__module__ == __name__ and not isinstance(own, property):
        raise AttributeError(f"{type(self).__name__} has no {name}")
    object.__setattr__(self, name, value)


def _property_of(owner: str, name: str, described: str, module: TensorRTStandIn) -> property:
    returned = described.rpartition("->")[2].strip()

    def read(self: Any) -> Any:
        behaviour = BEHAVIOUR.get(f"{owner}.{name}")
        return behaviour(module, self) if behaviour else self.__dict__.get(name, _DEFAULTS.get(returned))

    def write(self: Any, value: Any) -> None:
        _require_type(f"{owner}.{name}", returned, value, module)
        self.__dict__[name] = value

    return property(read, write if "(read/write)" in described else None)


def _method_of(owner: str, name: str, signatures: list[str], module: TensorRTStandIn) -> Callable[..., Any]:
    overloads = [_parse_signature(signature) for signature in signatures]

    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        problems = []
        for signature, types, returned in overloads:
            try:
                bound = signature.bind(self, *args, **keywords)
                for parameter, value in list(bound.arguments.items())[1:]:
                    _require_type(f"{owner}.{name}({parameter})", types[parameter], value, module)
            except TypeError as error:
                problems.append(str(error))
                continue
            values = dict(list(bound.arguments.items())[1:])
            behaviour = BEHAVIOUR.get(f"{owner}.{name}")
            if behaviour:
                return behaviour(module, self, **values)
            return module._new(returned) if returned in module._made else _DEFAULTS.get(returned)
        raise TypeError(f"{owner}.{name}: incompatible arguments: {'; '.join(problems)}")

    return call


def _new(self: TensorRTStandIn, name: str, **state: Any) -> Any:
    made = object.__new__(self._made[_ALIASES.get(name, name)])
    made.__dict__.update(state)
    return made


TensorRTStandIn._new = _new  # type: ignore[attr-defined]


def _parse_signature(text: str) -> tuple[inspect.Signature, dict[str, str], str]:
    """Parse a signature in pybind11's notation: the signature, each parameter's type, and the return type."""
    match = re.fullmatch(r"\w+\((.*)\)(?: -> (.*))?", text)
    assert match, text
    parameters, types = [], {}
    for part in _split_parameters(match[1]):
        declared, equals, _ = part.partition(" = ")
        name, _, kind = declared.partition(": ")
        types[name] = kind
        default = None if equals else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(parameters), types, match[2] or "None"


def _split_parameters(text: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _require_type(where: str, kind: str, value: Any, module: TensorRTStandIn) -> None:
    wanted = _PLAIN.get(kind) or module._made.get(kind)
    if wanted is None:
        raise TypeError(f"{where}: {kind} is not in the contract")
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise TypeError(f"{where}: {value!r} is no {kind}")
