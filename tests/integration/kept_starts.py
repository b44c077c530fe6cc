"""What versions of Callboard wrote of started runs (record version 2), kept in ``formats/starts``.

Each file holds a run that waits for its time, one of a group that is queued, one that has ended,
what waits for the group, and the group itself, as `write` leaves them in Redis. A value that is no
text is there in base64.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import redis
from kept_runs import FAR, as_bytes, record_of

from callboard.runs.children import group_run, then_id
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call, Sealer
from callboard.runs.start import Start, Terms
from callboard.runs.store import Runs
from callboard.sdk.action import Action
from callboard.sdk.results import ok

FOLDER = Path(__file__).with_name("formats") / "starts"
FILES = sorted(FOLDER.glob("*.json"))  # by date: the last one is what is written now
STATES = ("waiting", "queued", "ended", "joining")
PARENT = "00000000-0000-4000-8000-00000000000a"
GROUP = "00000000-0000-4000-8000-00000000000b"

Kept = dict[str, dict[str, Any]]  # by state: {"id": ..., "record": {field: text}}


def load(file: Path) -> Kept:
    """What a version wrote."""
    kept: Kept = json.loads(file.read_text())
    return kept


def put_back(client: redis.Redis, kept: Kept, *states: str) -> list[str]:
    """Have these runs, and the group, in Redis as if they had been written just now; their ids."""
    now, ids = int(time.time() * 1000), []
    left = {name: as_bytes(text) for name, text in kept["group"]["record"].items()}
    client.hset(f"callboard:group:{GROUP}", mapping=left)
    for state in states:
        run_id = kept[state]["id"]
        record = {name: as_bytes(text) for name, text in kept[state]["record"].items()}
        client.hset(f"callboard:run:{run_id}", mapping={**record, "enqueued": now})
        if state == "waiting":
            client.zadd("callboard:due", {run_id: now})
        elif state == "queued":
            client.zadd("callboard:open", {run_id: 1})
        elif state == "ended":
            client.rpush("callboard:ended", f"{run_id} {record['ended'].decode()}")
        ids.append(run_id)
    return ids


def write(client: redis.Redis, runs: Runs, action: Action) -> Kept:
    """What this version writes."""
    call = Call(
        caller="alice", claims={"sub": "alice"}, jwt="a.b.c", params={"name": "Zoë"},
        expires=FAR, parent=PARENT, depth=1,
    )  # fmt: skip
    joining = Call(caller="alice", expires=FAR, parent=PARENT, depth=1, group=(GROUP, 2))
    counts = Terms(group=GROUP, size=2)
    ids = {
        "waiting": "00000000-0000-4000-8000-00000000000c",
        "queued": group_run(GROUP, 0),
        "ended": group_run(GROUP, 1),
        "joining": then_id(GROUP),
    }
    terms = {
        "waiting": Terms(delay=60_000),
        "queued": counts,
        "ended": counts,
        "joining": Terms(join=GROUP, size=2),
    }
    starts = [
        Start(
            run_id=ids[state], action=action, call=joining if state == "joining" else call,
            terms=terms[state], idempotency=("key", "digest") if state == "waiting" else None,
        )
        for state in STATES
    ]  # fmt: skip
    runs.accept_many(starts, max_queue=9, result_ttl=300)
    runs.claim(ids["ended"], action.name, "worker:1:1", 5.0)
    outcome = Outcome.of(ok({"hello": "Zoë"}), ids["ended"])
    runs.finish(ids["ended"], action.name, "worker:1:1", outcome)
    kept = {state: {"id": i, "record": record_of(client, f"run:{i}")} for state, i in ids.items()}
    return {**kept, "group": {"id": GROUP, "record": record_of(client, f"group:{GROUP}")}}


def form(kept: Kept, sealer: Sealer) -> dict[str, set[str]]:
    """By run what its record consists of; of the calls what they say."""
    parts = {name: set(of["record"]) for name, of in kept.items()}
    for state in STATES:
        values = {name: as_bytes(text) for name, text in kept[state]["record"].items()}
        action = values["action"].decode()
        text = sealer.open("call", kept[state]["id"], action, values["seal"])
        parts[f"{state} call"] = set(json.loads(text))
    return parts
