"""The checks: what callers were told, against what is in the database and in the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import redis
from pymongo.database import Database

from callboard.connections.keys import Keys
from chaos.findings import Finding, doubled, lost
from chaos.intervals import Interval, overlapping
from chaos.load import ACCOUNTS, BALANCE, Call

KEYS = Keys()

__all__ = ["check_calls", "check_effects", "check_intervals", "check_records"]

ROWS = {
    "appendLine": "ledger",
    "transfer": "transfers",
    "longRun": "long_runs",
    "charge": "charges",
    "placeOrder": "orders",
    "inviteAll": "invitations",
}
"""Where an action leaves one record per call, with the call's key in it."""


def check_calls(calls: Sequence[Call]) -> Iterator[Finding]:
    """Every call got its answer, and the answer is what its handler returns.

    A call that is sent only once may be told instead that its worker was lost, or nothing.
    """
    for call in calls:
        if call.once:
            if not call.succeeded and call.status not in (0, 503, 504) and not call.worker_lost:
                yield lost(f"{call.status} {dict(call.envelope)}: {_name(call)}")
        elif call.answered is None:
            last = f"last {call.status} {dict(call.envelope)}"
            yield lost(
                f"no final answer after {call.tries} tries ({last}): {_name(call)}{call.held}"
            )
        elif not call.as_expected:
            yield lost(f"{call.status} {dict(call.envelope)}: {_name(call)}")


def check_records(client: redis.Redis, calls: Sequence[Call]) -> Iterator[Finding]:
    """Every run that was accepted has ended, and the record says what the caller was told."""
    ends: dict[str, str] = {}
    for key in client.scan_iter("callboard:run:*", count=1000):
        status = client.hget(key, "status")
        if status is None and not client.exists(key):
            continue  # a run that had ended long ago has expired since its key was found
        ends[key.decode().rpartition(":")[2]] = (status or b"none").decode()
    for run_id, status in ends.items():
        if status not in ("succeeded", "failed", "canceled"):
            yield lost(f"run {run_id} is {status}")
    for run_id in client.zrange(KEYS.open, 0, -1):
        yield lost(f"run {run_id.decode()} is still to be looked at")
    for call in calls:
        told = ends.get(call.run_id or "", "unknown")
        if call.succeeded and told != "succeeded":
            yield lost(f"a success was told, the record says {told}: {_name(call)}")
    for run_id, count in Counter(call.run_id for call in calls if call.run_id).items():
        if count > 1:
            yield doubled(f"run {run_id} answered {count} calls")


def check_effects(database: Database[dict[str, Any]], calls: Sequence[Call]) -> Iterator[Finding]:
    """Every success has its effects, exactly; no effect is there twice or unasked."""
    yield from _check_profiles(database, calls)
    for action, collection in ROWS.items():
        rows = Counter(row["data"]["key"] for row in database[collection].find())
        yield from _check_rows(collection, rows, [c for c in calls if c.kind == action])
    yield from _check_balances(database)


def _check_profiles(database: Database[dict[str, Any]], calls: Sequence[Call]) -> Iterator[Finding]:
    stored = {row["_id"]: row["data"] for row in database["profiles"].find()}
    for call in calls:
        if call.kind == "putProfile" and call.succeeded:
            found = stored.get(call.key)
            if found != {"amount": call.params["amount"]}:
                yield lost(f"profile holds {found}: {_name(call)}")


def _check_rows(
    collection: str, rows: Mapping[str, int], calls: Iterable[Call]
) -> Iterator[Finding]:
    unasked = dict(rows)
    for call in calls:
        count = unasked.pop(call.key, 0)
        if count > 1:
            yield doubled(f"{count} records in {collection}: {_name(call)}")
        if call.succeeded and not count:
            yield lost(f"no record in {collection}: {_name(call)}")
    for key, count in unasked.items():
        yield doubled(f"{count} records in {collection} that no call asked for: {key}")


def _check_balances(database: Database[dict[str, Any]]) -> Iterator[Finding]:
    """Each account is where its transfers brought it; so the sum is what it was."""
    expected = dict.fromkeys(ACCOUNTS, BALANCE)
    for row in database["transfers"].find():
        expected[row["data"]["source"]] -= row["data"]["amount"]
        expected[row["data"]["target"]] += row["data"]["amount"]
    stored = {row["_id"]: row["data"]["balance"] for row in database["accounts"].find()}
    for account, balance in expected.items():
        if stored.get(account) != balance:
            yield lost(f"{account} has {stored.get(account)}, its transfers make {balance}")
    if sum(stored.values()) != sum(expected.values()):
        yield lost(f"all accounts together have {sum(stored.values())}")


def check_intervals(intervals: Sequence[Interval]) -> Iterator[Finding]:
    """No run was executed twice at one time."""
    for one, other in overlapping(intervals):
        shared = min(one.end, other.end) - other.start
        yield doubled(f"run {one.run_id} in processes {one.pid} and {other.pid} for {shared:.3f} s")


def _name(call: Call) -> str:
    return f"{call.action} {call.key} (run {call.run_id})"
