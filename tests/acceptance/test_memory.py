"""Steps and waits in real processes that die."""

from __future__ import annotations

import pytest
from local_stack import Stack


@pytest.mark.parametrize(
    ("die", "times"),
    [
        (None, 1),
        ("before", 1),
        ("after the effect", 2),  # what no system can rule out: hence the key
        ("after the keeping", 1),
        ("after the wait", 1),
    ],
)
def test_a_step_is_done_once_whenever_its_process_dies(
    app_stack: Stack, die: str | None, times: int
) -> None:
    response = app_stack.call("remembers", {"die": die}, prefer="respond-async")
    run = app_stack.run(response.headers["Run-Id"])
    assert run["result"]["data"] == {"charged": "charged", "times": times, "keys": 1}
    assert run["attempts"] == (1 if die is None else 2)
