"""A cluster on AWS: the permissions of its machines, their start, and their spot notices."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import moto
import pytest
import ray
import yaml
from infra_files import DOCKERFILES, INFRA, KUBERNETES, ROOT
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME


def test_aws_cluster_config_matches_the_schema_of_ray() -> None:
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


def test_aws_workers_may_access_only_data_and_images() -> None:
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


def test_aws_head_may_change_only_machines_of_its_own_cluster() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    found = statements("iam-policy-head.json")
    (passing,) = (statement for statement in found if "iam:PassRole" in actions(statement))
    assert passing["Resource"].endswith(":role/maag-worker")
    changing = {"ec2:CreateTags", "ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances"}
    ours = {"StringEquals": {f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": cluster["cluster_name"]}}
    conditions = {action: [s["Condition"] for s in found if action in actions(s)] for action in changing}
    # It tags what it starts in the same request, and anything else only if it is ours already.
    as_it_starts = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    assert conditions.pop("ec2:CreateTags") == [as_it_starts, ours]
    assert all(conditions[action] == [ours] for action in conditions)


@pytest.mark.slow
def test_ray_keeps_aws_machines_in_our_security_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-nobody")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes an SSH key there.
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


def test_aws_worker_containers_request_gpus_and_images_do_not() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    words = shlex.split(" ".join(cluster["docker"]["worker_run_options"]))
    asked = dict(setting.split("=") for flag, setting in zip(words[::2], words[1::2], strict=True) if flag == "-e")
    assert asked == {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    assert not any("NVIDIA_VISIBLE_DEVICES" in path.read_text() for path in DOCKERFILES)


def test_readme_explains_how_to_find_the_aws_machine_image() -> None:
    cluster = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())
    # Ray has a default of its own, whose driver is too old.
    images = {kind["node_config"].get("ImageId") for kind in cluster["available_node_types"].values()}
    assert images == {"GPU_IMAGE"}
    readme = (INFRA / "README.md").read_text().replace("\\\n", " ")
    (asked,) = re.findall(r"GPU_IMAGE=\$\((aws ssm get-parameter .*)\)", readme)
    words = shlex.split(asked)
    assert words[words.index("--region") + 1] == cluster["provider"]["region"]
    assert re.fullmatch(r"/aws/service/deeplearning/ami/x86_64/[\w.-]+/latest/ami-id", words[words.index("--name") + 1])


def test_readme_fills_in_every_placeholder_once() -> None:
    readme = (INFRA / "README.md").read_text().replace("\\\n", " ")
    # With a suffix for backups, which macOS requires.
    filled = re.findall(r'sed -i\S+ "(.*)" (.*)', readme)
    assert len(filled) == readme.count("sed -i")
    placeholders: dict[str, set[str]] = {}
    for program, files in filled:
        for name in re.findall(r"s\|(\w+)\|", program):
            assert name not in placeholders
            placeholders[name] = {str(path) for pattern in files.split() for path in ROOT.glob(pattern)}
    for path in (*KUBERNETES, *(INFRA / "ray").glob("*.*")):
        lines = (line for line in path.read_text().splitlines() if path.suffix in {".yaml", ".json"})
        used = {
            word for line in lines for word in re.findall(r"\b(?:REGISTRY|BUCKET|GPU_IMAGE|SECURITY_GROUP)\b", line)
        }
        assert used <= {name for name, files in placeholders.items() if str(path) in files}, path


def test_readme_gives_every_aws_command_its_region() -> None:
    region = yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text())["provider"]["region"]
    readme = (INFRA / "README.md").read_text().replace("\\\n", " ")
    calls = re.findall(r"\baws (?:ec2|ecr|ssm|s3 mb) .*", readme)
    assert len(calls) > 5
    assert all(re.search(rf"--region {region}\b", call) for call in calls), calls


@pytest.fixture
def metadata() -> Iterator[tuple[str, dict[str, str], list[int]]]:
    """An instance's metadata service, its answer, and the errors that precede it."""
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


@pytest.mark.slow
def test_spot_notice_drains_the_node(metadata: tuple[str, dict[str, str], list[int]]) -> None:
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


def test_spot_notice_is_seen_after_failed_requests(metadata: tuple[str, dict[str, str], list[int]]) -> None:
    notice = spot_notice()
    address, answer, failures = metadata
    answer.update({"action": "terminate", "time": "2030-01-01T10:02:00Z"})
    failures.extend([503, 200, 500])  # A bad token, a token and a bad answer.
    assert notice.wait_for_end(address, look_every_s=0.01) == datetime(2030, 1, 1, 10, 2, tzinfo=UTC)
    assert not failures


def test_drain_is_retried_until_ray_accepts_it(capsys: pytest.CaptureFixture[str]) -> None:
    failures: list[Exception] = [ConnectionError("no Ray here"), subprocess.CalledProcessError(1, "ray")]
    calls = []

    def act() -> None:
        if failures:
            raise failures.pop(0)
        calls.append("end")

    spot_notice().until_done(act, again_after_s=0.01)
    assert calls == ["end"]
    assert capsys.readouterr().err.splitlines()[0] == "no Ray here; again in 0.01 s"
