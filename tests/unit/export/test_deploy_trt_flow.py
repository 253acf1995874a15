"""Building and running engines, on stand-ins made from the APIs of TensorRT 10 and 11."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda
from tensorrt_stand_in import VERSIONS, TensorRTStandIn
from tiny_artifact import CONFIG, write_tiny_graph

from deploy.artifact.engine import Profile, profile_of
from deploy.artifact.tensors import input_spec
from deploy.runners.cuda import TorchCuda
from deploy.runners.trt_build import build_engine
from deploy.runners.trt_presence import TensorRT
from deploy.runners.trt_runner import TrtRunner
from maag.errors import CheckpointError, DataError, ExportError

SPEC = input_spec(CONFIG)
PROFILE = Profile(smallest=(1, 1, 16, 32), tuned=(2, 1, 16, 32), largest=(4, 1, 16, 32))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tensorrt(version: str) -> TensorRT:
    return TensorRT(TensorRTStandIn(version), FakeCuda())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_graph(tmp_path / "model.onnx")


def plan_of(model: Path, tensorrt: TensorRT, profile: Profile = PROFILE) -> bytes:
    return build_engine(model, "fp16", profile, tensorrt)


def images_of(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(count).normal(size=(count, 1, 16, 32)).astype(np.float32)


def test_an_engine_computes_its_graph_for_any_number_of_slices(model: Path, tensorrt: TensorRT) -> None:
    runner = TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt, batch_size=4)
    for count in (1, 2, 3, 4, 5, 9):
        images = images_of(count)
        found = runner.outputs(images)
        np.testing.assert_allclose(found["probabilities"][:, 1:], 1 / (1 + np.exp(-2 * images)), rtol=1e-5)
        np.testing.assert_array_equal(found["labels"], found["probabilities"].argmax(axis=1))
        assert found["labels"].dtype == np.uint8
        assert found["gates_0"].shape == images.shape
        np.testing.assert_array_equal(runner(images), found["probabilities"])
    assert runner.name == "tensorrt"
    assert tensorrt.trt.deserialized == 1


def test_one_cuda_graph_is_captured_per_power_of_two(model: Path, tensorrt: TensorRT) -> None:
    runner = TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt, batch_size=16)
    for count in (4, 3, 7, 1, 2, 8, 15):  # the engine's largest batch is 4
        runner(images_of(count))
    assert runner.num_graphs == 3
    assert tensorrt.cuda.replays == 1 + 1 + 2 + 1 + 1 + 2 + 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("use_graphs", [True, False])
def test_slices_are_queued_where_no_cuda_graph_is_captured(model: Path, version: str, use_graphs: bool) -> None:
    tensorrt = TensorRT(TensorRTStandIn(version), FakeCuda(captures=not use_graphs))
    runner = TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt, graphs=use_graphs)
    other = TrtRunner(plan_of(model, tensorrt), SPEC, TensorRT(tensorrt.trt, FakeCuda()))
    np.testing.assert_array_equal(runner(images_of(5)), other(images_of(5)))
    assert (runner.num_graphs, other.num_graphs) == (0, 2)


def test_the_next_call_does_not_overwrite_earlier_results(model: Path, tensorrt: TensorRT) -> None:
    runner = TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt)
    first = runner(images_of(2))
    before = first.copy()
    runner(-images_of(2))
    np.testing.assert_array_equal(first, before)


def test_any_size_within_the_profile_is_accepted_and_others_refused(tmp_path: Path, tensorrt: TensorRT) -> None:
    model = write_tiny_graph(tmp_path / "model.onnx", dynamic_size=True)
    spec = input_spec(CONFIG, dynamic_size=True)
    profile = profile_of(spec, CONFIG.data.size_px)
    assert (profile.smallest, profile.largest) == ((1, 1, 16, 16), (16, 1, 32, 64))
    runner = TrtRunner(plan_of(model, tensorrt, profile), spec, tensorrt)
    for side in range(16, 80, 16):
        shape = (1, 1, 16, side)
        if side <= 64:
            assert runner(np.zeros(shape, np.float32)).shape == (1, 2, 16, side)
    with pytest.raises(DataError, match=r"shape \(1, 1, 48, 16\), the largest is \(16, 1, 32, 64\)"):
        runner(np.zeros((1, 1, 48, 16), np.float32))
    with pytest.raises(DataError, match="multiples of 16"):
        runner(np.zeros((1, 1, 24, 16), np.float32))


def test_an_image_of_another_shape_is_refused(model: Path, tensorrt: TensorRT) -> None:
    runner = TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt)
    with pytest.raises(DataError, match=r"\(1, 16, 32\), got \(1, 32, 16\)"):
        runner(np.zeros((1, 1, 32, 16), np.float32))


def test_only_fp32_engines_are_built_with_tf32_disabled(model: Path, tensorrt: TensorRT) -> None:
    trt = tensorrt.trt
    build_engine(model, "int8", PROFILE, tensorrt)
    assert [name for name, _ in trt.config_calls] == ["set_memory_pool_limit"]
    build_engine(model, "fp32", PROFILE, tensorrt)
    assert trt.config_calls[-1] == ("clear_flag", {"flag": trt.BuilderFlag.TF32})


def test_timings_are_cached_and_reused(model: Path, tensorrt: TensorRT, tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    for expected in (b"timed ", b"timed timed "):
        build_engine(model, "fp16", PROFILE, tensorrt, caches)
        (kept,) = caches.glob("*.cache")
        assert kept.read_bytes() == expected
    assert kept.name == f"timings-{tensorrt.environment.name}.cache"


def test_timings_of_another_device_are_replaced(model: Path, tensorrt: TensorRT, tmp_path: Path) -> None:
    kept = tmp_path / f"timings-{tensorrt.environment.name}.cache"
    kept.write_bytes(b"of another device")
    build_engine(model, "fp16", PROFILE, tensorrt, tmp_path)
    assert kept.read_bytes() == b"timed "


def test_all_parser_errors_are_shown(tmp_path: Path, tensorrt: TensorRT) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(
        ExportError, match=r"cannot parse model\.onnx:\n  Conv node_0: .*\n  Conv node_0: a second error"
    ):
        plan_of(tmp_path / "model.onnx", tensorrt)


@pytest.mark.parametrize(
    ("fail", "error", "sentence"),
    [
        ("start", ExportError, r"does not start here \(.* returned nullptr\)\n  CUDA initialization failure"),
        ("build", ExportError, r"cannot build an engine from model\.onnx\n  no tactic for node_conv$"),
        ("context", CheckpointError, "cannot prepare the engine, perhaps for lack of GPU memory"),
        ("enqueue", CheckpointError, "could not run the engine"),
    ],
)
def test_each_tensorrt_failure_raises_a_typed_error(
    model: Path, version: str, fail: str, error: type[Exception], sentence: str
) -> None:
    tensorrt = TensorRT(TensorRTStandIn(version, fail), FakeCuda())
    with pytest.raises(error, match=sentence):
        TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt)(images_of(1))


@pytest.mark.parametrize("memory", [0, 4096], ids=["for nothing", "for layers, not for images"])
def test_a_gpu_without_memory_for_the_buffers_is_refused(model: Path, version: str, memory: int) -> None:
    full = TensorRT(TensorRTStandIn(version), FakeCuda(memory=memory))
    with pytest.raises(CheckpointError, match=r"too little memory .*\. Tried to allocate 1 MiB\); .* --backend onnx"):
        TrtRunner(plan_of(model, full), SPEC, full)


def test_running_out_of_gpu_memory_for_another_size_raises_an_error(model: Path, version: str) -> None:
    cuda = FakeCuda()
    tensorrt = TensorRT(TensorRTStandIn(version), cuda)
    runner = TrtRunner(plan_of(model, tensorrt), SPEC, tensorrt)
    cuda.memory = 0
    with pytest.raises(CheckpointError, match="too little memory"):
        runner(images_of(1))
    assert runner(images_of(4)).shape == (4, 2, 16, 32)


def test_the_stream_is_synchronised_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    stream = SimpleNamespace(
        wait_stream=lambda other: done.append("begun"), synchronize=lambda: done.append("synchronised")
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    cuda = TorchCuda()
    with pytest.raises(CheckpointError), cuda.working():
        raise CheckpointError("in between")
    assert done == ["begun", "synchronised"]


def test_a_file_that_is_not_an_engine_is_refused(tensorrt: TensorRT) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read the engine; .*\n  magicTag mismatch"):
        TrtRunner(b"\x00 plan of another version", SPEC, tensorrt)


MISUSES: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "an attribute": (lambda trt: trt.IInt8EntropyCalibrator2, AttributeError),
    "a method": (lambda trt: builder_of(trt).build_engine, AttributeError),
    "a keyword": (lambda trt: builder_of(trt).create_network(flag=1), TypeError),
    "too few": (lambda trt: builder_of(trt).build_serialized_network(), TypeError),
    "too many": (lambda trt: builder_of(trt).create_builder_config(1), TypeError),
    "a type": (lambda trt: builder_of(trt).create_network("strongly typed"), TypeError),
    "a new property": (lambda trt: setattr(builder_of(trt).create_builder_config(), "fp16", True), AttributeError),
    "no constructor": (lambda trt: trt.IHostMemory(), TypeError),
    "a shift": (lambda trt: 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED, TypeError),
    "another's flag": (lambda trt: config_of(trt).clear_flag(trt.MemoryPoolType.WORKSPACE), TypeError),
}


def builder_of(trt: Any) -> Any:
    class Silent(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

    return trt.Builder(Silent())


def config_of(trt: Any) -> Any:
    return builder_of(trt).create_builder_config()


@pytest.mark.parametrize("misuse", MISUSES)
def test_the_stand_in_refuses_misuse_of_the_api(version: str, misuse: str) -> None:
    use, error = MISUSES[misuse]
    with pytest.raises(error):
        use(TensorRTStandIn(version))


def test_the_stand_ins_differ_like_the_api_versions() -> None:
    ten, eleven = (TensorRTStandIn(version) for version in VERSIONS)
    assert int(ten.BuilderFlag.FP16) == 0
    with pytest.raises(AttributeError, match="FP16"):
        _ = eleven.BuilderFlag.FP16
    flags = [int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) for trt in (ten, eleven)]
    assert flags == [1, 0]
