"""A stand-in for TensorRT that is made from its API and refuses everything that is not in it.

Names, arity, keywords, types and enum members come from `contracts/tensorrt.json`. What engines do comes from ONNX
Runtime: a "plan" holds the ONNX graph, and running an engine runs the graph on the memory at the addresses it was
given, so that a wrong address, shape or type gives wrong numbers here too. It proves that the real API is called as it
wants to be called, and nothing about TensorRT itself.
"""

from __future__ import annotations

import base64
import ctypes
import enum
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

API: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "contracts" / "tensorrt.json").read_text())
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
    """The module `tensorrt` of one version, with nothing in it but what the contract has.

    `fail` names what shall go wrong: "start" (no builder and no runtime), "build" or "context" (None instead of an
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
    """Like pybind's: converted by int() and by nothing else, so that `1 << member` fails here as there."""

    def __int__(self) -> int:
        return int(self.value)


def _class_of(name: str, entry: dict[str, Any], module: TensorRTStandIn) -> type:
    namespace: dict[str, Any] = {"__setattr__": _refusing_setattr}
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
    if name == "IHostMemory":  # Its buffer protocol is nothing that introspection shows.
        namespace["__bytes__"] = lambda self: bytes(self.__dict__["content"])
    namespace.setdefault("__init__", _not_for_users)
    return type(name, (), namespace)


def _not_for_users(self: Any, *args: Any, **keywords: Any) -> None:
    raise TypeError(f"{type(self).__name__}: no constructor defined")


def _refusing_setattr(self: Any, name: str, value: Any) -> None:
    own = type(self).__dict__.get(name)
    if isinstance(own, property) and own.fset is None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")
    # Classes that Python derives from the bindings' may have attributes of their own.
    if type(self).__module__ == __name__ and not isinstance(own, property):
        raise AttributeError(f"{type(self).__name__} has no {name}")
    object.__setattr__(self, name, value)


def _property_of(owner: str, name: str, described: str, module: TensorRTStandIn) -> property:
    returned = described.rpartition("->")[2].strip()

    def read(self: Any) -> Any:
        behaviour = _BEHAVIOUR.get(f"{owner}.{name}")
        return behaviour(module, self) if behaviour else self.__dict__.get(name, _DEFAULTS.get(returned))

    def write(self: Any, value: Any) -> None:
        _require_type(f"{owner}.{name}", returned, value, module)
        self.__dict__[name] = value

    return property(read, write if "(read/write)" in described else None)


def _method_of(owner: str, name: str, signatures: list[str], module: TensorRTStandIn) -> Callable[..., Any]:
    overloads = [_parsed(signature) for signature in signatures]

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
            behaviour = _BEHAVIOUR.get(f"{owner}.{name}")
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


def _parsed(text: str) -> tuple[inspect.Signature, dict[str, str], str]:
    """A line of pybind's: the signature to bind with, the type of each parameter, and what is returned."""
    match = re.fullmatch(r"\w+\((.*)\)(?: -> (.*))?", text)
    assert match, text
    parameters, types = [], {}
    for part in _split(match[1]):
        declared, equals, _ = part.partition(" = ")
        name, _, kind = declared.partition(": ")
        types[name] = kind
        default = None if equals else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(parameters), types, match[2] or "None"


def _split(text: str) -> list[str]:
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


# What the classes do, by class and member: the module, the object, the arguments.


def _start(module: TensorRTStandIn, started: Any, logger: Any) -> None:
    if module.fail == "start":
        logger.log(module.ILogger.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    started.__dict__["logger"] = logger


def _init_parser(module: TensorRTStandIn, parser: Any, network: Any, logger: Any) -> None:
    parser.__dict__.update(network=network, errors=[])


def _parse(module: TensorRTStandIn, parser: Any, model: bytes, path: str | None = None) -> bool:
    try:
        onnx.checker.check_model(onnx.load_from_string(model))
    except Exception as error:
        parser.__dict__["errors"] = [str(error).splitlines()[0], "a second error"]
        return False
    parser.__dict__["network"].__dict__["model"] = model
    return True


def _create_network(module: TensorRTStandIn, builder: Any, flags: int = 0) -> Any:
    strongly = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert flags == strongly, f"flags {flags}: types would not be those of the graph"
    return module._new("INetworkDefinition")  # type: ignore[attr-defined]


def _set_shape(module: TensorRTStandIn, profile: Any, input: str, min: Any, opt: Any, max: Any) -> None:
    assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
    profile.__dict__["shapes"] = {"name": input, "shapes": [list(min), list(opt), list(max)]}


def _add_profile(module: TensorRTStandIn, config: Any, profile: Any) -> int:
    config.__dict__["profile"] = profile.__dict__["shapes"]
    return 0


def _note(name: str) -> Callable[..., None]:
    def note(module: TensorRTStandIn, config: Any, **values: Any) -> None:
        module.config_calls.append((name, values))

    return note


def _create_cache(module: TensorRTStandIn, config: Any, serialized_timing_cache: bytes) -> Any:
    return module._new("ITimingCache", content=bytes(serialized_timing_cache))  # type: ignore[attr-defined]


def _set_cache(module: TensorRTStandIn, config: Any, cache: Any, ignore_mismatch: bool) -> bool:
    module.config_calls.append(("set_timing_cache", cache.__dict__["content"]))
    return not cache.__dict__["content"].startswith(b"of another device")


def _serialize_cache(module: TensorRTStandIn, cache: Any) -> Any:
    return module._new("IHostMemory", content=cache.__dict__["content"] + b"timed ")  # type: ignore[attr-defined]


def _build(module: TensorRTStandIn, builder: Any, network: Any, config: Any) -> Any:
    if module.fail == "build":
        builder.__dict__["logger"].log(module.ILogger.ERROR, "no tactic for node_conv")
        builder.__dict__["logger"].log(module.ILogger.Severity.WARNING, "a remark")
        return None
    model = base64.b64encode(network.__dict__["model"]).decode()
    plan = json.dumps({"model": model, **config.__dict__["profile"]}).encode()
    return module._new("IHostMemory", content=plan)  # type: ignore[attr-defined]


def _deserialize(module: TensorRTStandIn, runtime: Any, serialized_engine: bytes) -> Any:
    module.deserialized += 1
    try:
        plan = json.loads(bytes(serialized_engine))
    except ValueError:
        runtime.__dict__["logger"].log(module.ILogger.ERROR, "magicTag mismatch")
        return None
    graph = base64.b64decode(plan["model"])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    half = onnx.TensorProto.FLOAT16
    is_half = any(tensor.data_type == half for tensor in onnx.load_from_string(graph).graph.initializer)
    wrong = module.fail == "numbers" or (module.fail == "fp16 numbers" and is_half)
    state = {"session": session, "shapes": plan["shapes"], "input": plan["name"], "wrong": wrong}
    return module._new("ICudaEngine", **state)  # type: ignore[attr-defined]


def _tensors(engine: Any) -> list[Any]:
    session = engine.__dict__["session"]
    return [*session.get_inputs(), *session.get_outputs()]


def _dtype(module: TensorRTStandIn, engine: Any, name: str) -> Any:
    types = {"tensor(float)": module.DataType.FLOAT, "tensor(uint8)": module.DataType.UINT8}
    return next(types[tensor.type] for tensor in _tensors(engine) if tensor.name == name)


def _mode(module: TensorRTStandIn, engine: Any, name: str) -> Any:
    is_input = name == engine.__dict__["input"]
    return module.TensorIOMode.INPUT if is_input else module.TensorIOMode.OUTPUT


def _create_context(module: TensorRTStandIn, engine: Any, strategy: Any = None) -> Any:
    assert strategy is module.ExecutionContextAllocationStrategy.USER_MANAGED
    if module.fail == "context":
        return None
    return module._new("IExecutionContext", engine=engine, addresses={}, memory=0)  # type: ignore[attr-defined]


def _set_memory(module: TensorRTStandIn, context: Any, memory: int, size: int) -> None:
    assert size >= context.__dict__["engine"].device_memory_size_v2
    context.__dict__["memory"] = memory


def _set_input_shape(module: TensorRTStandIn, context: Any, name: str, shape: tuple[int, ...]) -> bool:
    smallest, _, largest = context.__dict__["engine"].__dict__["shapes"]
    if not all(low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True)):
        return False
    context.__dict__["shape"] = shape
    session = context.__dict__["engine"].__dict__["session"]
    found = session.run(None, {name: np.zeros(shape, np.float32)})
    context.__dict__["found"] = {
        output.name: values for output, values in zip(session.get_outputs(), found, strict=True)
    }
    return True


def _tensor_shape(module: TensorRTStandIn, context: Any, name: str) -> tuple[int, ...]:
    return tuple(context.__dict__["found"][name].shape)


def _set_address(module: TensorRTStandIn, context: Any, name: str, memory: int) -> bool:
    context.__dict__["addresses"][name] = memory
    return True


def _execute(module: TensorRTStandIn, context: Any, stream_handle: int) -> bool:
    assert stream_handle == HostCuda.stream, "work on another stream than the runner's own"
    state = context.__dict__
    engine, addresses = state["engine"].__dict__, state["addresses"]
    if module.fail == "enqueue" or not state["memory"] or set(addresses) != {engine["input"], *state["found"]}:
        return False
    images = np.empty(state["shape"], np.float32)
    ctypes.memmove(images.ctypes.data, addresses[engine["input"]], images.nbytes)
    names = list(state["found"])
    for name, values in zip(names, engine["session"].run(names, {engine["input"]: images}), strict=True):
        given = np.zeros_like(values) if engine["wrong"] else np.ascontiguousarray(values)
        ctypes.memmove(addresses[name], given.ctypes.data, given.nbytes)
    return True


def _error(module: TensorRTStandIn, parser: Any, index: int) -> Any:
    return module._new("ParserError", text=parser.__dict__["errors"][index])  # type: ignore[attr-defined]


_BEHAVIOUR: dict[str, Callable[..., Any]] = {
    "Builder.__init__": _start,
    "Builder.create_network": _create_network,
    "Builder.build_serialized_network": _build,
    "OnnxParser.__init__": _init_parser,
    "OnnxParser.parse": _parse,
    "OnnxParser.num_errors": lambda module, parser: len(parser.__dict__["errors"]),
    "OnnxParser.get_error": _error,
    "ParserError.desc": lambda module, error: error.__dict__["text"],
    "ParserError.node_name": lambda module, error: "node_0",
    "ParserError.node_operator": lambda module, error: "Conv",
    "IOptimizationProfile.set_shape": _set_shape,
    "IBuilderConfig.add_optimization_profile": _add_profile,
    "IBuilderConfig.clear_flag": _note("clear_flag"),
    "IBuilderConfig.set_memory_pool_limit": _note("set_memory_pool_limit"),
    "IBuilderConfig.create_timing_cache": _create_cache,
    "IBuilderConfig.set_timing_cache": _set_cache,
    "ITimingCache.serialize": _serialize_cache,
    "Runtime.__init__": _start,
    "Runtime.deserialize_cuda_engine": _deserialize,
    "ICudaEngine.num_io_tensors": lambda module, engine: len(_tensors(engine)),
    "ICudaEngine.get_tensor_name": lambda module, engine, index: _tensors(engine)[index].name,
    "ICudaEngine.get_tensor_mode": _mode,
    "ICudaEngine.get_tensor_dtype": _dtype,
    "ICudaEngine.get_tensor_profile_shape": lambda module, engine, name, profile_index: engine.__dict__["shapes"],
    "ICudaEngine.create_execution_context": _create_context,
    "ICudaEngine.device_memory_size_v2": lambda module, engine: 4096,
    "IExecutionContext.set_device_memory": _set_memory,
    "IExecutionContext.set_input_shape": _set_input_shape,
    "IExecutionContext.get_tensor_shape": _tensor_shape,
    "IExecutionContext.set_tensor_address": _set_address,
    "IExecutionContext.execute_async_v3": _execute,
}


class HostCuda:
    """Host memory in the place of a GPU's."""

    compute_capability = "9.0"
    version = "13.0"
    stream = 7

    def __init__(self, gpu: str = "NVIDIA Stand-In", *, captures: bool = True) -> None:
        self.gpu = gpu
        self.replays = 0
        self._captures = captures

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.full(shape, 99, dtype=dtype)

    @contextmanager
    def working(self) -> Iterator[None]:
        yield

    def capture(self, work: Callable[[], bool]) -> Callable[[], None] | None:
        if not (self._captures and work()):
            return None

        def replay() -> None:
            self.replays += 1
            assert work()

        return replay
