"""The probes of the manifests and the compose file, run against a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import redis
import yaml
from doc_pages import ROOT

from callboard.connections import heartbeat
from callboard.connections.keys import Keys

KEYS = Keys()

NOWHERE = "redis://127.0.0.1:1/0"
SIGNS = {  # of life, as each process shows them
    "worker": f"{KEYS.worker}celery@{os.uname().nodename}",
    "beat": f"{KEYS.beat}any",
}


def probe(name: str, kind: str) -> list[str]:
    """The Python of a probe of ``callboard-<name>``."""
    manifest = yaml.safe_load_all((ROOT / f"deploy/kubernetes/{name}.yaml").read_text())
    deployment: Any = next(one for one in manifest if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return arguments(container[kind]["exec"]["command"])


def compose_check(name: str) -> list[str]:
    """The Python of a service's health check."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return arguments(services[name]["healthcheck"]["test"][1:])


def arguments(command: list[str]) -> list[str]:
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


def passes(command: list[str], redis_url: str) -> bool:
    environment = {**os.environ, "REDIS_URL": redis_url, "CALLBOARD_NAMESPACE": "callboard"}
    return (
        subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (probe("worker", "startupProbe"), "worker"),
        (probe("worker", "livenessProbe"), "worker"),
        (probe("beat", "livenessProbe"), "beat"),
        (compose_check("beat"), "beat"),
    ],
)
def test_passes_while_the_sign_of_life_is_there(
    command: list[str], name: str, redis_url: str, redis_client: redis.Redis
) -> None:
    assert not passes(command, redis_url)
    heartbeat.show(redis_client, SIGNS[name], "{}", seconds=60)
    assert passes(command, redis_url)


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_broker_that_is_away_kills_nobody(name: str) -> None:
    assert passes(probe(name, "livenessProbe"), NOWHERE)


def test_a_worker_has_not_started_without_a_broker() -> None:
    assert not passes(probe("worker", "startupProbe"), NOWHERE)
