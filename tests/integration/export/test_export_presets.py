"""The best preset adds nothing to the network at inference: the exported one is the paper's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deploy.exporting.graph import onnx_from_segmentor
from maag.config.codec import override
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.train.state import TrainState

pytestmark = pytest.mark.integration


def architecture(config: Config) -> dict[str, Any]:
    """All of the exported graph but the values of its weights."""
    segmentor = TrainState(config, torch.device("cpu")).eval_segmentor
    with torch.no_grad():
        for parameter in segmentor.parameters():  # Else constants of equal values, such as new biases, become one.
            parameter.normal_()
    graph = onnx_from_segmentor(segmentor, config, gates=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {
        "nodes": [(node.op_type, *node.input, *node.output, *map(str, node.attribute)) for node in graph.node],
        "weights": {tensor.name: (tensor.data_type, *tensor.dims) for tensor in graph.initializer},
        "tensors": {value.name: str(value.type) for value in values},
    }


def test_best_preset_exports_the_same_network_as_the_paper_preset() -> None:
    configs = [preset("acdc", name) for name in ("best", "paper")]
    (height, width), of_paper = (config.data.size_px for config in configs)
    assert height * width <= of_paper[0] * of_paper[1]
    best, paper = (architecture(override(config, {"data.size_px": list(of_paper)})) for config in configs)
    assert {output for _, _, *names in paper["nodes"] for output in names} & paper["tensors"].keys()
    for part, expected in paper.items():
        assert best[part] == expected, part
