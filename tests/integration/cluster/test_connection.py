"""A command joins only the cluster that was named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from maag.train.launch.connection import connected
from maag.train.launch.room import nodes_of_cluster

pytestmark = pytest.mark.integration


@pytest.fixture
def other_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A running cluster without CPUs, named by the environment as in a Ray job."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield
    cluster.shutdown()


@pytest.mark.usefixtures("other_cluster")
def test_cluster_is_joined_only_on_request() -> None:
    with connected("auto"):
        assert [node.cpus for node in nodes_of_cluster()] == [0]
    with connected(None, num_cpus=2):
        assert [node.cpus for node in nodes_of_cluster()] == [2]
