"""Every use of TensorRT in the source of deploy/ is in the APIs of 10 and of 11. Names only, not behaviour."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorrt_stand_in import API, VERSIONS

DEPLOY = Path(__file__).parents[3] / "deploy"
MODULE = "the module"

# The types of our own names that hold TensorRT objects; all others follow from the signatures.
KNOWN = {
    "trt": MODULE,
    "tensorrt.trt": MODULE,
    "self.trt": MODULE,
    "self._trt": MODULE,
    "presence.trt": MODULE,
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "self.context": "IExecutionContext",
    "reported": "ParserError",
}
SOURCES = sorted((DEPLOY / "runners").glob("trt_*.py"))


def test_only_the_trt_modules_use_tensorrt() -> None:
    for path in set(DEPLOY.rglob("*.py")) - set(SOURCES):
        assert not re.search(r"\btrt\.(?!__)[A-Za-z]|import tensorrt|[\"']tensorrt[\"']\)", path.read_text()), path


class Uses:
    """The uses of TensorRT in a file, by class and member, found by following assignments and signatures."""

    def __init__(self, tree: ast.Module, api: dict[str, Any]) -> None:
        self._api = api
        self._types = dict(KNOWN)
        self.found: list[tuple[str, str, int]] = []
        for _ in range(2):  # Attributes of objects may be assigned below where they are used.
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and (kind := self._type_of(node.value)):
                    for target in node.targets:
                        self._types[ast.unparse(target)] = kind
        self.found = [use for node in ast.walk(tree) for use in self._uses_of(node)]

    def _uses_of(self, node: ast.AST) -> Iterator[tuple[str, str, int]]:
        if isinstance(node, ast.Attribute) and (owner := self._type_of(node.value)):
            yield owner, node.attr, node.lineno

    def _type_of(self, node: ast.expr) -> str | None:
        if (known := self._types.get(ast.unparse(node))) is not None:
            return known
        if isinstance(node, ast.Attribute) and (owner := self._type_of(node.value)):
            return node.attr if owner == MODULE and node.attr in self._api else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = self._type_of(node.func.value)
            if owner == MODULE:
                return node.func.attr if node.func.attr in self._api else None
            if owner:
                return self._returned(owner, node.func.attr)
        return None

    def _returned(self, owner: str, method: str) -> str | None:
        signature = self._api[owner].get(method)
        signature = signature[0] if isinstance(signature, list) else signature
        returned = str(signature).rpartition("-> ")[2]
        return returned if returned in self._api else None


def uses(path: Path, version: str) -> list[tuple[str, str, int]]:
    return Uses(ast.parse(path.read_text()), API[version]).found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_use_is_in_the_api(path: Path, version: str) -> None:
    missing = []
    for owner, name, line in uses(path, version):
        entry = API[version] if owner == MODULE else API[version].get(owner, {})
        if name not in entry and name not in entry.get("__members__", {}) and not is_ours(owner, name):
            missing.append(f"line {line}: {owner}.{name}")
    assert missing == []


def is_ours(owner: str, name: str) -> bool:
    """Whether it is a member of our Python class derived from TensorRT's logger."""
    return owner == "ILogger" and name in {"errors", "text"}


def test_known_uses_are_found() -> None:
    found = {(owner, name) for path in SOURCES for owner, name, _ in uses(path, VERSIONS[0])}
    assert {
        (MODULE, "Builder"),
        ("BuilderFlag", "TF32"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ITimingCache", "serialize"),
        ("IOptimizationProfile", "set_shape"),
        ("OnnxParser", "get_error"),
        ("ParserError", "desc"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_device_memory"),
        ("DataType", "UINT8"),
    } <= found


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", ("BuilderFlag", "FP16")),
        ("builder = trt.Builder(said)\nbuilder.build_engine(network)", ("Builder", "build_engine")),
        ("runtime = trt.Runtime(said)\nengine = runtime.deserialize_cuda_engine(b'')\nengine.max_batch_size",
         ("ICudaEngine", "max_batch_size")),
    ],
)  # fmt: skip
def test_a_use_outside_the_api_is_detected(line: str, use: tuple[str, str]) -> None:
    api = API[VERSIONS[1]]
    assert use in {(owner, name) for owner, name, _ in Uses(ast.parse(line), api).found}
    owner, name = use
    assert name not in {**api[owner], **api[owner].get("__members__", {})}


def test_the_recorded_api_holds_only_what_is_used() -> None:
    found = {(owner, name) for path in SOURCES for owner, name, _ in uses(path, VERSIONS[0])}
    classes = {name: entry for name, entry in API[VERSIONS[0]].items() if entry["__kind__"] == "class"}
    listed = {(owner, name) for owner, entry in classes.items() for name in entry if not name.startswith("__")}
    assert listed - found <= {("ILogger", "log"), ("ILogger", "Severity")}
