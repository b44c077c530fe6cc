"""What there is to say of one run: its record, who executed it, what the logs have of it.

Of the record only what is not sealed. Moments of the record are told as seconds from now, by the
broker's clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import redis

from callboard.connections.keys import Keys
from chaos.stack import Stack

__all__ = ["inspected"]

KEYS = Keys()
TOLD = ("status", "action", "attempt", "lost", "max_lost", "again", "restarted", "holder", "v")
MOMENTS = ("enqueued", "started", "due", "lease", "ended", "cancel", "retried")
LINES = 8  # of the logs, the last ones
LINE = 300  # characters of each


def inspected(stack: Stack, run_id: str) -> str:
    """All of it, a line each."""
    lines = []
    with stack.redis() as client:
        try:
            lines += _record(client, run_id)
        except redis.RedisError as error:
            lines.append(f"record: {type(error).__name__}")
    lines += _executions(stack.intervals, run_id)
    lines += _logged(stack.log_folder, run_id)
    return "\n    ".join(["", *lines])


def _record(client: redis.Redis, run_id: str) -> Iterator[str]:
    key, now = KEYS.run(run_id), _now(client)
    fields = (*TOLD, *MOMENTS, "queue", "message")
    known = dict(zip(fields, cast("list[bytes | None]", client.hmget(key, fields)), strict=True))
    told = {name: value.decode(errors="replace") for name, value in known.items() if value}
    message, queue = told.pop("message", ""), told.pop("queue", "")
    facts = [f"{name} {told[name]}" for name in TOLD if name in told]
    facts += [f"{name} {_ago(now, float(told[name]))}" for name in MOMENTS if name in told]
    yield f"record: {', '.join(facts) or 'none'}"
    for name, scores in (("looked at", KEYS.open), ("released", KEYS.due)):
        score = cast("float | None", client.zscore(scores, run_id))
        yield f"{name}: {'never' if score is None else _ago(now, score)}"
    if queue:
        place = client.lpos(queue, message)
        depth = client.llen(queue)
        yield f"queue {queue}: {depth} deep, its message is at {place}"


def _now(client: redis.Redis) -> float:
    seconds, microseconds = cast("tuple[int, int]", client.time())
    return seconds * 1000 + microseconds / 1000


def _ago(now: float, moment: float) -> str:
    seconds = (now - moment) / 1000
    return f"{seconds:.1f} s ago" if seconds >= 0 else f"in {-seconds:.1f} s"


def _executions(folder: Path, run_id: str) -> Iterator[str]:
    """By which processes, from when until when it was last heard of."""
    now = time.monotonic()
    for path in sorted(folder.iterdir()):
        seen: dict[str, list[tuple[str, float]]] = {}
        for line in path.read_text().splitlines():
            number, run, event, at = line.split()
            if run == run_id:
                seen.setdefault(number, []).append((event, now - float(at)))
        for (_, first), *_, (event, last) in ([*events, events[-1]] for events in seen.values()):
            how = "ended" if event == "end" else "last heard of"
            yield f"executed by {path.name}: from {first:.1f} s ago, {how} {last:.1f} s ago"


def _logged(folder: Path, run_id: str) -> list[str]:
    lines = [
        f"{path.name}: {line[:LINE]}"
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for line in path.read_text(errors="replace").splitlines()
        if run_id in line
    ]
    return lines[-LINES:]
