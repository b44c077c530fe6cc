"""How many connections an address may have: real addresses, in a network of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LINKS = """
set -e
ip link set lo up
for number in 1 2 3; do ip addr add 10.9.9.$number/24 dev lo; done
for address in fd00:9:9:1::1 fd00:9:9:1::2 fd00:9:9:2::1; do
    ip addr add $address/64 dev lo nodad
done
exec "$@"
"""
SERVED, REFUSED = [200] * 5, [429] * 3


@pytest.fixture
def network(program: Callable[..., str], able: Callable[..., None]) -> list[str]:
    """How a command begins that runs in a network of its own, with several addresses."""
    program("ip")
    alone = [program("unshare"), "--net"]
    able([*alone, "true"], "a network of its own: to be root, with CAP_SYS_ADMIN")
    return [*alone, "sh", "-c", LINKS, "sh"]


@pytest.fixture
def seen(network: list[str], tmp_path: Path) -> Any:
    script = Path(__file__).with_name("many_addresses.py")
    done = subprocess.run(
        [*network, sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_address_has_a_bounded_number_of_connections(seen: Any) -> None:
    assert seen["answered"] == {
        "loopback": [200] * 8,  # a proxy on this machine has many clients
        "IPv6 loopback": [200] * 8,
        "unix": [200] * 8,
        "IPv4": SERVED + REFUSED,
        "another of IPv4": SERVED + REFUSED,
        "one network of IPv6": SERVED + REFUSED,  # both addresses together
        "another network of IPv6": SERVED + REFUSED,
    }
    assert seen["served"] < 30  # closed ones do not count
    head, _, body = seen["told"].partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 429 ")
    assert "\r\nRetry-After: 2" in head
    assert json.loads(body)["code"] == "rate_limited"
