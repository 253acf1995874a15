"""Behaviour of the classes in the TensorRT stand-in: functions of the module, the object and the arguments."""

from __future__ import annotations

import base64
import ctypes
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from fake_cuda import FakeCuda

if TYPE_CHECKING:
    from tensorrt_stand_in import TensorRTStandIn


def _init_with_logger(module: TensorRTStandIn, created: Any, logger: Any) -> None:
    if module.fail == "start":
        logger.log(module.ILogger.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    created.__dict__["logger"] = logger


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
    strongly_typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert flags == strongly_typed, f"flags {flags}: types would not be those of the graph"
    return module._new("INetworkDefinition")  # type: ignore[attr-defined]


def _set_shape(module: TensorRTStandIn, profile: Any, input: str, min: Any, opt: Any, max: Any) -> None:
    assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
    profile.__dict__["shapes"] = {"name": input, "shapes": [list(min), list(opt), list(max)]}


def _add_profile(module: TensorRTStandIn, config: Any, profile: Any) -> int:
    config.__dict__["profile"] = profile.__dict__["shapes"]
    return 0


def _recorder(name: str) -> Callable[..., None]:
    def record(module: TensorRTStandIn, config: Any, **values: Any) -> None:
        module.config_calls.append((name, values))

    return record


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
    outputs = session.run(None, {name: np.zeros(shape, np.float32)})
    context.__dict__["outputs"] = {
        output.name: values for output, values in zip(session.get_outputs(), outputs, strict=True)
    }
    return True


def _tensor_shape(module: TensorRTStandIn, context: Any, name: str) -> tuple[int, ...]:
    return tuple(context.__dict__["outputs"][name].shape)


def _set_address(module: TensorRTStandIn, context: Any, name: str, memory: int) -> bool:
    context.__dict__["addresses"][name] = memory
    return True


def _execute(module: TensorRTStandIn, context: Any, stream_handle: int) -> bool:
    assert stream_handle == FakeCuda.stream, "work on another stream than the runner's own"
    state = context.__dict__
    engine, addresses = state["engine"].__dict__, state["addresses"]
    if module.fail == "enqueue" or not state["memory"] or set(addresses) != {engine["input"], *state["outputs"]}:
        return False
    images = np.empty(state["shape"], np.float32)
    ctypes.memmove(images.ctypes.data, addresses[engine["input"]], images.nbytes)
    names = list(state["outputs"])
    for name, values in zip(names, engine["session"].run(names, {engine["input"]: images}), strict=True):
        output = np.zeros_like(values) if engine["wrong"] else np.ascontiguousarray(values)
        ctypes.memmove(addresses[name], output.ctypes.data, output.nbytes)
    return True


def _error(module: TensorRTStandIn, parser: Any, index: int) -> Any:
    return module._new("ParserError", text=parser.__dict__["errors"][index])  # type: ignore[attr-defined]


BEHAVIOUR: dict[str, Callable[..., Any]] = {
    "Builder.__init__": _init_with_logger,
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
    "IBuilderConfig.clear_flag": _recorder("clear_flag"),
    "IBuilderConfig.set_memory_pool_limit": _recorder("set_memory_pool_limit"),
    "IBuilderConfig.create_timing_cache": _create_cache,
    "IBuilderConfig.set_timing_cache": _set_cache,
    "ITimingCache.serialize": _serialize_cache,
    "Runtime.__init__": _init_with_logger,
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
