"""Tell Ray that AWS is about to take this spot instance away, so that the run is saved first.

    python spot_notice.py

AWS announces it two minutes ahead in the instance's metadata; Ray then drains the node, and `maag train` saves its
state and continues elsewhere. Runs beside `ray start` on each worker until it has told Ray. Failures, of a request
or of Ray, are retried without end, because nothing would start this program again.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

METADATA = "http://169.254.169.254/latest"
_LOOK_EVERY_S = 5.0


def announced_end(metadata: str = METADATA) -> datetime | None:
    """When the instance will be taken away; None while nothing is announced.

    Raises OSError for a missing or bad answer.
    """
    ask = urllib.request.Request(
        f"{metadata}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    with urllib.request.urlopen(ask, timeout=2) as answer:
        token = answer.read().decode()
    look = urllib.request.Request(
        f"{metadata}/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
    )
    try:
        with urllib.request.urlopen(look, timeout=2) as answer:
            return datetime.fromisoformat(json.load(answer)["time"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def drain_command(address: str, node_id: str, end: datetime, now: datetime) -> list[str]:
    """The command that tells Ray that the node is leaving."""
    seconds = max(1, int((end - now).total_seconds()))
    return [
        *("ray", "drain-node", "--address", address, "--node-id", node_id),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot instance is taken away"),
        *("--deadline-remaining-seconds", str(seconds)),
    ]


def wait_for_end(metadata: str = METADATA, look_every_s: float = _LOOK_EVERY_S) -> datetime:
    """Poll until an end is announced; return when the instance will be taken away."""
    while True:
        # The service is busy or restarting now and then; the only notice may come after that.
        with contextlib.suppress(OSError):
            if (end := announced_end(metadata)) is not None:
                return end
        time.sleep(look_every_s)


def drain(end: datetime) -> None:
    """Tell the Ray instance on this machine that its node is leaving."""
    import ray

    ray.init(address="auto", log_to_driver=False)
    try:
        context = ray.get_runtime_context()
        address, node_id = context.gcs_address, context.get_node_id()
    finally:
        ray.shutdown()
    subprocess.run(drain_command(address, node_id, end, datetime.now(UTC)), check=True)


def until_done(act: Callable[[], None], again_after_s: float = _LOOK_EVERY_S) -> None:
    """Retry `act` until it succeeds, printing each failure to the log."""
    while True:
        try:
            return act()
        except Exception as error:  # Any failure: giving up would lose the last minutes of the run.
            print(f"{error}; again in {again_after_s:g} s", file=sys.stderr, flush=True)
        time.sleep(again_after_s)


def main() -> None:
    """Wait for the announcement, tell Ray, and exit."""
    end = wait_for_end()
    until_done(lambda: drain(end))


if __name__ == "__main__":
    main()
