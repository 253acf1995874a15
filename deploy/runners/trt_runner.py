"""Run a TensorRT engine: loaded once, on its own stream, with a CUDA graph for each batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.artifact.tensors import PROBABILITIES, TensorSpec, require_fitting
from deploy.runners.trt_build import messages
from deploy.runners.trt_presence import TensorRT
from maag.errors import CheckpointError, DataError

Shape = tuple[int, ...]

_MOST_PREPARED = 8  # shapes kept ready, each with its buffers


class TrtRunner:
    """A serialized engine on TensorRT.

    Batches are padded to 1, 2, 4, … or `batch_size` slices, so that there are few sizes, each prepared once.

    Args:
        plan: the engine, built for this machine; see `deploy.artifact.engine.differences`.
        spec: the model's input.
        tensorrt: TensorRT and its device.
        batch_size: slices per batch, at most the engine's largest.
        graphs: replay a CUDA graph if one can be captured, which saves the launches of some forty kernels.

    Raises:
        CheckpointError: TensorRT does not start or cannot read the engine, or the device has too little memory for it.
    """

    def __init__(
        self, plan: bytes, spec: TensorSpec, tensorrt: TensorRT, batch_size: int = 16, *, graphs: bool = True
    ) -> None:
        self._trt, self._cuda = tensorrt
        self._spec = spec
        self._graphs = graphs
        self._messages = messages(self._trt)
        try:
            self._runtime = self._trt.Runtime(self._messages)
        except TypeError as error:  # pybind's error for a constructor that returns nothing
            raise CheckpointError(f"TensorRT does not start here ({error}){self._messages.text()}") from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise CheckpointError(f"TensorRT cannot read the engine; export the model again{self._messages.text()}")
        self._outputs = {
            name: _torch_type(self._trt, self._engine.get_tensor_dtype(name))
            for name in (self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors))
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT
        }
        _, tuned, self._largest = map(tuple, self._engine.get_tensor_profile_shape(spec.name, 0))
        self._batch_size = min(batch_size, int(self._largest[0]))
        self._prepared: dict[Shape, _Prepared] = {}
        with _memory_errors(), self._cuda.working():
            # Contexts run one after the other, so they share scratch memory.
            self._scratch = self._cuda.empty((max(1, int(self._engine.device_memory_size_v2)),), torch.uint8)
            # Prepare now, so that an engine that cannot run fails before the first volume.
            self._prepare((self._batch_size, *tuned[1:]))

    @property
    def name(self) -> str:
        """`tensorrt`."""
        return "tensorrt"

    @property
    def num_graphs(self) -> int:
        """Number of captured CUDA graphs."""
        return sum(prepared.replay is not None for prepared in self._prepared.values())

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) float32 of normalised images (N, C, H, W) float32.

        Raises:
            DataError: the engine does not accept C, H or W.
            CheckpointError: TensorRT failed, or the device has too little memory for another size of images.
        """
        return self.outputs(images)[PROBABILITIES]

    def outputs(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """All outputs by name, with the types in the manifest; raises as a call does."""
        require_fitting(images, self._spec)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in self._outputs}
        for start in range(0, len(images), self._batch_size):
            batch = np.ascontiguousarray(images[start : start + self._batch_size])
            with _memory_errors(), self._cuda.working():
                found = self._run(torch.from_numpy(batch))
                for name, values in found.items():
                    parts[name].append(values[: len(batch)].cpu().numpy().copy())
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _run(self, batch: Tensor) -> dict[str, Tensor]:
        size = min(1 << (len(batch) - 1).bit_length(), self._batch_size)
        prepared = self._prepare((size, *batch.shape[1:]))
        prepared.images[: len(batch)].copy_(batch)
        prepared.images[len(batch) :].zero_()
        if prepared.replay:
            prepared.replay()
        elif not prepared.enqueue():
            raise CheckpointError(f"TensorRT could not run the engine{self._messages.text()}")
        return prepared.outputs

    def _prepare(self, shape: Shape) -> _Prepared:
        """Buffers and a context for images of `shape`, with a graph if one can be captured."""
        if shape in self._prepared:
            return self._prepared[shape]
        # A graph belongs to the state of its context, so each shape has a context of its own.
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy=strategy)
        if context is None:
            raise CheckpointError(
                f"TensorRT cannot prepare the engine, perhaps for lack of GPU memory{self._messages.text()}"
            )
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
        if not context.set_input_shape(self._spec.name, shape):
            raise DataError(
                f"the engine does not accept images of shape {shape}, the largest is {self._largest}; export another"
            )
        images = self._cuda.empty(shape, torch.float32)
        outputs = {
            name: self._cuda.empty(tuple(context.get_tensor_shape(name)), dtype)
            for name, dtype in self._outputs.items()
        }
        for name, buffer in {self._spec.name: images, **outputs}.items():
            context.set_tensor_address(name, buffer.data_ptr())
        prepared = _Prepared(context, self._cuda.stream, images, outputs)
        images.zero_()
        # Run once without a graph, for TensorRT's one-time work, which a graph must not contain.
        if self._graphs and prepared.enqueue():
            prepared.replay = self._cuda.capture(prepared.enqueue)
        if len(self._prepared) >= _MOST_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[shape] = prepared
        return prepared


@dataclass(slots=True)
class _Prepared:
    """Context and buffers for one shape of images."""

    context: Any
    stream: int
    images: Tensor
    outputs: dict[str, Tensor]
    replay: Callable[[], None] | None = None

    def enqueue(self) -> bool:
        """Enqueue one run; False if TensorRT refuses."""
        return bool(self.context.execute_async_v3(self.stream))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn PyTorch's out-of-memory errors into CheckpointError, as for TensorRT's own."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = ". ".join(str(error).split(". ")[:2])
        raise CheckpointError(
            f"the GPU has too little memory for the engine ({reason}); stop other work on it, or use --backend onnx"
        ) from error


def _torch_type(trt: Any, dtype: Any) -> torch.dtype:
    types = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
        trt.DataType.UINT8: torch.uint8,
    }
    return types[dtype]
