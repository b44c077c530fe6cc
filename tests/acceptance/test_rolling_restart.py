"""Every process is replaced by a new one while callers call: no call fails, nothing runs twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from chaos.checks import check_calls, check_effects, check_intervals, check_records
from chaos.intervals import read_intervals
from chaos.load import Load
from chaos.settling import settle
from chaos.stack import API, BEAT, FLOWER, WORKERS, Stack, running_stack
from chaos.started import check_started

GRACE = 8.0  # seconds: more than a call takes here, its turn in the queue included
ENOUGH = 20  # calls that are answered between two restarts


def test_a_rolling_restart_of_every_process_fails_no_call(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with running_stack(tmp_path, fsync="always", CALLBOARD_STOP_GRACE=f"{GRACE:g}") as stack:
        stack.add_beat_and_flower()
        stack.wait_ready()
        load = Load(
            stack.url, stack.environment["JWT_SECRET"], secrets.randbelow(1_000_000),
            keyed=False, long=(1.0, 2.0),
        )  # fmt: skip
        load.start()
        try:
            for restart in (_workers, _api, _beat_and_flower):
                _go_on(stack, load, eventually)
                restart(stack)
            _go_on(stack, load, eventually)
        finally:
            load.stop()
        eventually(lambda: stack.look_after() or not stack.leaving)
        settle(stack)
        with stack.redis() as client, stack.database() as database:
            findings = [
                *check_calls(load.calls),
                *check_records(client, load.calls),
                *check_effects(database, load.calls),
                *check_started(database, load.calls),
                *check_intervals(read_intervals(stack.intervals, {})),
            ]
        assert not findings
        assert not stack.problems
    sent_again = [call for call in load.calls if call.tries > 1]
    assert not sent_again  # no reset connection, no 5xx: each call was sent once
    assert {call.action for call in load.calls} >= {"transfer", "longRun"}


def _go_on(stack: Stack, load: Load, eventually: Callable[..., None]) -> None:
    """Wait until some more calls were answered."""
    so_far = _answered(load)
    eventually(lambda: stack.look_after() or _answered(load) >= so_far + ENOUGH)


def _answered(load: Load) -> int:
    return sum(call.answered is not None for call in load.calls)


def _workers(stack: Stack) -> None:
    for name in WORKERS:
        stack.relieve(name)


def _api(stack: Stack) -> None:
    for _ in range(2):
        stack.reload(API)


def _beat_and_flower(stack: Stack) -> None:
    stack.relieve(BEAT)
    stack.restart(FLOWER)
