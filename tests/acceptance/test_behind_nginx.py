"""Behind nginx, with its default settings: what happens in a run is seen as it happens."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from local_stack import Stack

from callboard.stack.ports import free_port

SETTINGS = """
daemon off;
{user}
pid {folder}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {url}; }}
    }}
}}
"""


@pytest.fixture
def nginx(
    app_stack: Stack, program: Callable[..., str], eventually: Callable[..., None], tmp_path: Path
) -> Iterator[str]:
    """The URL of an nginx in front of the API."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # the folder is ours
    settings = tmp_path / "nginx.conf"
    settings.write_text(SETTINGS.format(user=user, folder=tmp_path, port=port, url=app_stack.url))
    command = [program("nginx"), "-c", str(settings), "-e", str(tmp_path / "log")]
    process = subprocess.Popen(command)
    try:
        eventually(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_progress_comes_through_as_it_happens(app_stack: Stack, nginx: str) -> None:
    headers = {"Authorization": f"Bearer {app_stack.token()}"}
    run_id = app_stack.call("slow", {"seconds": 40}, Prefer="respond-async").headers["Run-Id"]
    url = f"{nginx}/api/runs/{run_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=60) as response:
        assert response.headers["server"].startswith("nginx")
        lines = response.iter_lines()
        for step in range(3):
            next(line for line in lines if line.startswith("data:") and f"step {step}" in line)
            assert app_stack.status(run_id) == "running"
        app_stack.cancel(run_id)
        assert any('"status": "canceled"' in line for line in lines)
