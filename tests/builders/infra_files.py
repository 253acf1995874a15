"""The Kubernetes manifests and Dockerfiles under infra/, as paths and parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = sorted((INFRA / "kubernetes").glob("*.yaml"))
DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
JOBS = {path.stem: yaml.safe_load(path.read_text()) for path in KUBERNETES}
RAY_JOBS = [job for job in JOBS.values() if job["kind"] == "RayJob"]


def pod_templates() -> list[dict[str, Any]]:
    """Pod templates of the head and worker groups of all Ray jobs."""
    clusters = [job["spec"]["rayClusterSpec"] for job in RAY_JOBS]
    groups = [group for cluster in clusters for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [group["template"] for group in groups]
