"""What versions of Callboard wrote of a run, kept in the folder ``formats``: a file a version.

Each holds a run that is queued, one whose worker died, and one that has ended, as `write` leaves
them in Redis. A value that is no text is there in base64.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import redis

from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Runs
from callboard.sdk.action import Action
from callboard.sdk.results import ok

FOLDER = Path(__file__).with_name("formats")
FILES = sorted(FOLDER.glob("*.json"))  # by date: the last one is what is written now
STATES = ("queued", "lapsed", "ended")
FAR = 4_102_444_800.0  # the calls do not expire before 2100

Kept = dict[str, dict[str, Any]]  # by state: {"id": ..., "record": {field: text}}


def load(file: Path) -> Kept:
    """What a version wrote."""
    kept: Kept = json.loads(file.read_text())
    return kept


def put_back(client: redis.Redis, kept: Kept, state: str, **changes: Any) -> str:
    """Have the run in Redis as if it had been written just now; its id."""
    run_id: str = kept[state]["id"]
    record = {name: as_bytes(text) for name, text in kept[state]["record"].items()}
    now = int(time.time() * 1000)
    client.hset(f"callboard:run:{run_id}", mapping={**record, "enqueued": now, **changes})
    if state == "ended":
        client.rpush("callboard:ended", f"{run_id} {record['ended'].decode()}")
    else:
        client.zadd("callboard:open", {run_id: 1})
    return run_id


def write(client: redis.Redis, runs: Runs, action: Action) -> Kept:
    """What this version writes."""
    call = Call(
        caller="alice",
        claims={"sub": "alice", "plan": "pro"},
        jwt="a.b.c",
        params={"name": "Zoë"},
        expires=FAR,
    )
    ids = {state: f"00000000-0000-4000-8000-{n:012}" for n, state in enumerate(STATES)}
    options: dict[str, Any] = {"max_queue": 9, "result_ttl": 300, "reply": "callboard:reply:1-abc"}
    for run_id in ids.values():
        runs.accept(run_id, action, call, **options)
    for state, lease in {"lapsed": 0.001, "ended": 5.0}.items():
        holder = (ids[state], action.name, f"worker:1:{state}")
        runs.claim(*holder, lease)
        runs.note_progress(*holder, b'{"fraction":0.5,"message":"half"}')
    runs.note_session(ids["lapsed"], "worker:1:lapsed", "0" * 32)
    outcome = Outcome.of(ok({"hello": "Zoë"}), ids["ended"])
    runs.finish(ids["ended"], action.name, "worker:1:ended", outcome)
    return {state: {"id": i, "record": record_of(client, f"run:{i}")} for state, i in ids.items()}


def form(kept: Kept, sealer: Sealer) -> dict[str, set[str]]:
    """By part of a run what it consists of: all that a reader may look for by name."""
    parts = {state: set(kept[state]["record"]) for state in STATES}
    queued = {name: as_bytes(text) for name, text in kept["queued"]["record"].items()}
    envelope = json.loads(queued["message"])
    parts["message"] = set(envelope)
    parts["message headers"] = set(envelope["headers"])
    call = sealer.open("call", kept["queued"]["id"], queued["action"].decode(), queued["seal"])
    parts["call"] = set(json.loads(call))
    return parts


def wakeup_of(kept: Kept) -> bytes:
    """The message of the queued run."""
    return as_bytes(kept["queued"]["record"]["message"])


def renewed(text: bytes, **headers: Any) -> bytes:
    """The message with other headers."""
    envelope = json.loads(text)
    return json.dumps({**envelope, "headers": {**envelope["headers"], **headers}}).encode()


def record_of(client: redis.Redis, name: str) -> dict[str, str]:
    """What a hash of Redis holds, as text."""
    found: dict[bytes, bytes] = client.hgetall(f"callboard:{name}")  # type: ignore[assignment]
    return {name.decode(): _text(value) for name, value in sorted(found.items())}


def _text(value: bytes) -> str:
    return value.decode() if value.isascii() else "base64:" + base64.b64encode(value).decode()


def as_bytes(text: str) -> bytes:
    """A value as it was in Redis."""
    head, found, rest = text.partition("base64:")
    return base64.b64decode(rest) if found and not head else text.encode()
