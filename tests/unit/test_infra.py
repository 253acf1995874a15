"""Manifests and images, checked by all that runs without a cloud."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import kubernetes_validate
import moto
import pytest
import ray
import yaml
from ray._private import ray_constants
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME
from yamllint import linter
from yamllint.config import YamlLintConfig

from maag import __version__
from maag.cli.main import commands

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = sorted((INFRA / "kubernetes").glob("*.yaml"))
DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
JOBS = {path.stem: yaml.safe_load(path.read_text()) for path in KUBERNETES}
RAY_JOBS = [job for job in JOBS.values() if job["kind"] == "RayJob"]
LINT = YamlLintConfig("{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: disable}}")

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


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return dict(line.split("==") for line in lines)


def pod_templates() -> list[dict[str, Any]]:
    clusters = [job["spec"]["rayClusterSpec"] for job in RAY_JOBS]
    groups = [group for cluster in clusters for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [group["template"] for group in groups]


@pytest.mark.parametrize("path", [*KUBERNETES, INFRA / "ray" / "aws.yaml"], ids=lambda path: path.name)
def test_yaml_is_tidy(path: Path) -> None:
    assert [str(problem) for problem in linter.run(path.read_text(), LINT)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the dev extra has hadolint for Linux alone")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_tidy(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "install the dev extra"
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_is_there(path: Path) -> None:
    copied = [
        words for line in path.read_text().splitlines() if line.startswith("COPY") and (words := line.split()[1:-1])
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What maag cannot be built without.
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= {
        name for words in copied for name in words
    }
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for source in (name for words in copied for name in words):
        assert (ROOT / source).exists(), source
        assert f"!{Path(source).parts[0]}" in kept


def test_the_image_for_gpus_has_what_triton_compiles_with() -> None:
    installs = re.search(r"apt-get install (.*?)&&", (INFRA / "docker" / "train.Dockerfile").read_text(), re.DOTALL)
    assert installs is not None
    assert {"gcc", "libc6-dev"} <= set(installs.group(1).split())


@pytest.mark.parametrize("job", RAY_JOBS, ids=lambda job: job["metadata"]["name"])
def test_ray_jobs_have_the_fields_that_kuberay_knows(job: dict[str, Any]) -> None:
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
def test_ray_drains_nodes_for_most_of_the_time_that_their_pods_get(job: dict[str, Any]) -> None:
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    name = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, name)  # Which is read from the variable of the same name.
    assert 90 <= float(environment[name]) < pod["terminationGracePeriodSeconds"]


def test_predict_has_a_thread_for_each_cpu_of_its_pod() -> None:
    (container,) = JOBS["predict"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "OMP_NUM_THREADS", "value": container["resources"]["limits"]["cpu"]} in container["env"]


def test_predict_takes_no_pod_that_its_node_took_away_for_a_failure() -> None:
    first, *_ = JOBS["predict"]["spec"]["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_no_job_goes_on_for_ever(job: dict[str, Any]) -> None:
    assert job["spec"]["activeDeadlineSeconds"] > 0


def test_the_aws_cluster_fits_rays_own_schema() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    head, worker = (cluster["available_node_types"][name]["node_config"] for name in ("head", "worker"))
    assert "InstanceMarketOptions" not in head
    assert worker["InstanceMarketOptions"] == {"MarketType": "spot"}


def statements(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((INFRA / "ray" / name).read_text())["Statement"]
    assert {statement["Effect"] for statement in found} == {"Allow"}
    return found


def actions(statement: dict[str, Any]) -> set[str]:
    named = statement["Action"]
    return {named} if isinstance(named, str) else set(named)


def test_workers_on_aws_may_use_data_and_images_alone() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    profiles = {
        name: kind["node_config"]["IamInstanceProfile"]["Name"]
        for name, kind in cluster["available_node_types"].items()
    }
    assert profiles == {"head": "maag-head", "worker": "maag-worker"}
    readme = (INFRA / "README.md").read_text()
    assert "for NODE in head worker; do" in readme
    put = re.findall(r"put-role-policy --role-name (\S+) .* file://infra/ray/(\S+)", readme)
    assert put == [("maag-$NODE", "iam-policy.json"), ("maag-head", "iam-policy-head.json")]
    allowed = {action for statement in statements("iam-policy.json") for action in actions(statement)}
    assert {action.split(":")[0] for action in allowed} == {"s3", "ecr"}


def test_the_head_on_aws_may_touch_machines_of_its_own_cluster_alone() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    found = statements("iam-policy-head.json")
    (passing,) = (statement for statement in found if "iam:PassRole" in actions(statement))
    assert passing["Resource"].endswith(":role/maag-worker")
    changing = {"ec2:CreateTags", "ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances"}
    ours = {"StringEquals": {f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": cluster["cluster_name"]}}
    conditions = {action: [s["Condition"] for s in found if action in actions(s)] for action in changing}
    # What it starts is tagged in the same request; anything else only where it is ours already.
    as_it_starts = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    assert conditions.pop("ec2:CreateTags") == [as_it_starts, ours]
    assert all(conditions[action] == [ours] for action in conditions)


@pytest.mark.slow
def test_ray_leaves_the_machines_on_aws_in_our_security_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-nobody")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray lays a key for SSH there.
    text = (INFRA / "ray" / "aws.yaml").read_text()
    region = yaml.safe_load(text)["provider"]["region"]
    with moto.mock_aws():
        ec2 = boto3.client("ec2", region)
        ours = ec2.create_security_group(GroupName="maag", Description="x")["GroupId"]
        cluster = bootstrap_aws(yaml.safe_load(text.replace("SECURITY_GROUP", ours)))
        groups = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    kinds = [kind["node_config"] for kind in cluster["available_node_types"].values()]
    assert [kind["SecurityGroupIds"] for kind in kinds] == [[ours], [ours]]
    assert all(kind["SubnetIds"] for kind in kinds)
    # One that Ray makes has SSH open to the world, whatever `provider.security_group` says.
    assert groups == {"default", "maag"}


def test_containers_of_workers_on_aws_ask_for_their_gpus_and_the_images_do_not() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    words = shlex.split(" ".join(cluster["docker"]["worker_run_options"]))
    asked = dict(setting.split("=") for flag, setting in zip(words[::2], words[1::2], strict=True) if flag == "-e")
    assert asked == {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    assert not any("NVIDIA_VISIBLE_DEVICES" in path.read_text() for path in DOCKERFILES)


def test_machines_on_aws_have_an_image_that_the_readme_says_how_to_find() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    # Ray has a default of its own, whose driver is too old.
    images = {kind["node_config"].get("ImageId") for kind in cluster["available_node_types"].values()}
    assert images == {"GPU_IMAGE"}
    readme = (INFRA / "README.md").read_text().replace("\\\n", " ")
    (asked,) = re.findall(r"GPU_IMAGE=\$\((aws ssm get-parameter .*)\)", readme)
    words = shlex.split(asked)
    assert words[words.index("--region") + 1] == cluster["provider"]["region"]
    assert re.fullmatch(r"/aws/service/deeplearning/ami/x86_64/[\w.-]+/latest/ami-id", words[words.index("--name") + 1])


def test_the_readme_fills_in_every_blank_once() -> None:
    readme = (INFRA / "README.md").read_text().replace("\\\n", " ")
    # With an ending for the copies, which macOS wants.
    filled = re.findall(r'sed -i\S+ "(.*)" (.*)', readme)
    assert len(filled) == readme.count("sed -i")
    blanks: dict[str, set[str]] = {}
    for program, files in filled:
        for name in re.findall(r"s\|(\w+)\|", program):
            assert name not in blanks
            blanks[name] = {str(path) for pattern in files.split() for path in ROOT.glob(pattern)}
    for path in (*KUBERNETES, *(INFRA / "ray").glob("*.*")):
        lines = (line for line in path.read_text().splitlines() if path.suffix in {".yaml", ".json"})
        used = {
            word for line in lines for word in re.findall(r"\b(?:REGISTRY|BUCKET|GPU_IMAGE|SECURITY_GROUP)\b", line)
        }
        assert used <= {name for name, files in blanks.items() if str(path) in files}, path


def test_the_readme_names_the_region_wherever_aws_wants_one() -> None:
    region = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())["provider"]["region"]
    readme = (INFRA / "README.md").read_text().replace("\\\n", " ")
    calls = re.findall(r"\baws (?:ec2|ecr|ssm|s3 mb) .*", readme)
    assert len(calls) > 5
    assert all(re.search(rf"--region {region}\b", call) for call in calls), calls


def test_no_keys_lie_in_files() -> None:
    for path in (path for path in INFRA.rglob("*") if path.is_file()):
        assert not re.search(r"AKIA|aws_secret|SECRET_ACCESS_KEY\s*[:=]|BEGIN .*PRIVATE", path.read_text()), path


def test_tags_and_versions_agree() -> None:
    texts = {path: path.read_text() for path in INFRA.rglob("*") if path.is_file() and "__pycache__" not in str(path)}
    tags = {tag for text in texts.values() for tag in re.findall(r"maag-(?:train|predict):([\w.]+)", text)}
    assert tags == {__version__}
    assert {job["spec"]["rayClusterSpec"]["rayVersion"] for job in RAY_JOBS} == {pinned()["ray"]}
    python = {re.search(r"FROM python:(\S+)-slim", path.read_text()).group(1) for path in DOCKERFILES}  # type: ignore[union-attr]
    assert python == {"3.11"}
    for name in ("ray", "click", "nibabel"):
        assert version(name) == pinned()[name]


def test_the_oldest_ray_that_is_taken_announces_the_end_of_nodes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (*project["dependencies"], *project["optional-dependencies"]["cluster"])
    floors = {line.split(">=")[1] for line in wanted if line.startswith("ray[")}
    # The first with `ray.train.get_preemption_info`, which workers ask whether their node is about to leave.
    assert floors == {"2.58"}


def test_images_that_are_run_are_those_that_are_built() -> None:
    text = (INFRA / "README.md").read_text()
    assert re.findall(r"\bVERSION=(\S+)", text) == [__version__]
    built = set(re.findall(r"docker build .* -t (\S+)", text))
    run = {line.split()[0] for line in re.findall(r"docker run (?:.*\\\n)*(.*)", text)}
    assert run
    assert run <= built


def words_of_jobs() -> Iterator[list[str]]:
    for job in RAY_JOBS:
        yield shlex.split(job["spec"]["entrypoint"])
    yield JOBS["predict"]["spec"]["template"]["spec"]["containers"][0]["command"]
    for block in re.findall(r"^maag (?:\\\n|.)*$", (INFRA / "README.md").read_text(), flags=re.MULTILINE):
        yield shlex.split(block.replace("\\\n", " "))


@pytest.mark.parametrize("words", list(words_of_jobs()), ids=lambda words: " ".join(words[:3]))
def test_commands_in_manifests_and_readme_exist_with_their_options(words: list[str]) -> None:
    assert words[0] == "maag"
    command = commands.commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.slow
def test_the_predict_image_has_all_that_predict_imports() -> None:
    program = (
        "import sys, importlib.metadata as m\n"
        "import maag.cli.main, maag.cli.predict, deploy.batch, deploy.runners, deploy.artifact, deploy.dicom_seg\n"
        "known = m.packages_distributions()\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted({d.lower() for name in names for d in known.get(name, [])}))\n"
    )
    needed = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    listed = {line for line in (INFRA / "docker" / "predict.txt").read_text().splitlines() if not line.startswith("#")}
    asked = {re.split(r"[><=\[;]", line)[0] for line in _dependencies()}
    assert needed & {name.lower() for name in asked} <= listed | {"torch", "onnxruntime-gpu"}
    assert not needed & {"ray", "monai", "optuna", "scikit-image", "tensorboard"}


def _dependencies() -> list[str]:
    dependencies: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dependencies


@pytest.fixture
def metadata() -> Iterator[tuple[str, dict[str, str], list[int]]]:
    """An instance's metadata service, the answer that it gives, and the errors that it gives before."""
    answer: dict[str, str] = {}
    failures: list[int] = []

    class Service(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer("token")

        def do_GET(self) -> None:
            assert self.headers["X-aws-ec2-metadata-token"] == "token"
            self._answer(json.dumps(answer) if answer else None)

        def _answer(self, text: str | None) -> None:
            self.send_response(failures.pop(0) if failures else 404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answer, failures
    server.shutdown()
    server.server_close()


def spot_notice() -> Any:
    spec = spec_from_file_location("spot_notice", INFRA / "ray" / "spot_notice.py")
    assert spec is not None
    assert spec.loader is not None
    notice = module_from_spec(spec)
    spec.loader.exec_module(notice)
    return notice


def test_a_spot_notice_becomes_a_drain_of_the_node(metadata: tuple[str, dict[str, str], list[int]]) -> None:
    notice = spot_notice()
    address, answer, _ = metadata
    assert notice.announced_end(address) is None
    answer.update({"action": "terminate", "time": "2030-01-01T10:02:00Z"})
    end = notice.announced_end(address)
    assert end == datetime(2030, 1, 1, 10, 2, tzinfo=UTC)
    command = notice.drain_command("10.0.0.1:6379", "abc", end, end - timedelta(seconds=110))
    assert command[:2] == ["ray", "drain-node"]
    assert command[-1] == "110"
    help_text = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--help"], capture_output=True, text=True
    ).stdout
    assert all(word in help_text for word in command if word.startswith("--"))


def test_a_spot_notice_is_seen_after_requests_that_failed(metadata: tuple[str, dict[str, str], list[int]]) -> None:
    notice = spot_notice()
    address, answer, failures = metadata
    answer.update({"action": "terminate", "time": "2030-01-01T10:02:00Z"})
    failures.extend([503, 200, 500])  # A bad token, a token and a bad answer.
    assert notice.wait_for_end(address, look_every_s=0.01) == datetime(2030, 1, 1, 10, 2, tzinfo=UTC)
    assert not failures


def test_ray_is_told_of_the_end_until_it_hears(capsys: pytest.CaptureFixture[str]) -> None:
    failures: list[Exception] = [ConnectionError("no Ray here"), subprocess.CalledProcessError(1, "ray")]
    told = []

    def act() -> None:
        if failures:
            raise failures.pop(0)
        told.append("end")

    spot_notice().until_done(act, again_after_s=0.01)
    assert told == ["end"]
    assert capsys.readouterr().err.splitlines()[0] == "no Ray here; again in 0.01 s"
