"""Jobs on Kubernetes, checked against the schemas and behaviour of Kubernetes and KubeRay."""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from infra_files import JOBS, RAY_JOBS, pod_templates
from ray._private import ray_constants

# Facts of KubeRay's v1 API: the fields of RayJob, RayCluster and their groups that we use, by the names it has.
RAY_JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": {"type": "string"},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
                "runtimeEnvYAML": {"type": "string"},
                "entrypointNumCpus": {"type": "number"},
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["headGroupSpec"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "idleTimeoutSeconds": {"type": "integer"},
                                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                                "resources": {"type": "object"},
                            },
                        },
                        "headGroupSpec": {"$ref": "#/$defs/head"},
                        "workerGroupSpecs": {"type": "array", "items": {"$ref": "#/$defs/workers"}},
                    },
                },
            },
        },
    },
    "$defs": {
        "params": {"type": "object", "additionalProperties": {"type": "string"}},
        "head": {
            "type": "object",
            "required": ["rayStartParams", "template"],
            "additionalProperties": False,
            "properties": {
                "rayStartParams": {"$ref": "#/$defs/params"},
                "template": {"type": "object"},
                "serviceType": {"type": "string"},
            },
        },
        "workers": {
            "type": "object",
            "required": ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            "additionalProperties": False,
            "properties": {
                "groupName": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 0},
                "minReplicas": {"type": "integer", "minimum": 0},
                "maxReplicas": {"type": "integer", "minimum": 0},
                "numOfHosts": {"type": "integer", "minimum": 1},
                "rayStartParams": {"$ref": "#/$defs/params"},
                "template": {"type": "object"},
            },
        },
    },
}


@pytest.mark.parametrize("job", RAY_JOBS, ids=lambda job: job["metadata"]["name"])
def test_ray_jobs_have_only_fields_known_to_kuberay(job: dict[str, Any]) -> None:
    jsonschema.validate(job, RAY_JOB_SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job, "spec": {**job["spec"], "entryPoint": "x"}}, RAY_JOB_SCHEMA)


def test_pods_and_jobs_are_valid_for_kubernetes() -> None:
    for template in pod_templates():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, "1.31", strict=True)
        for container in template["spec"]["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
    kubernetes_validate.validate(JOBS["predict"], "1.31", strict=True)


@pytest.mark.parametrize("job", RAY_JOBS, ids=lambda job: job["metadata"]["name"])
def test_ray_drain_timeout_fits_the_termination_grace_period(job: dict[str, Any]) -> None:
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    name = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, name)  # Ray reads it from the variable of the same name.
    assert 90 <= float(environment[name]) < pod["terminationGracePeriodSeconds"]


def test_predict_has_a_thread_for_each_cpu_of_its_pod() -> None:
    (container,) = JOBS["predict"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "OMP_NUM_THREADS", "value": container["resources"]["limits"]["cpu"]} in container["env"]


def test_predict_job_does_not_count_disrupted_pods_as_failures() -> None:
    first, *_ = JOBS["predict"]["spec"]["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_every_job_has_a_deadline(job: dict[str, Any]) -> None:
    assert job["spec"]["activeDeadlineSeconds"] > 0
