"""Each Lua script by itself on the real server: what it answers, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from doc_pages import ROOT

from callboard.connections.keys import Keys
from callboard.runs.counters import BOUNDS
from callboard.runs.scripts import lua_list, script, scripts

FOLDER = ROOT / "callboard/runs"
KEYS = Keys()
NAMES = KEYS.constants()
PARTS = {"common", "guard", "slots"}  # what others begin with
TEXTS = {
    **scripts(KEYS),
    "lines": script("lines", **NAMES),
    "page": script("page", "guard", **NAMES),
    "settle": script("settle", "guard", **NAMES, BOUNDS=lua_list(BOUNDS)),
    "take": script("take", "guard", **NAMES),
}

RUN, OPEN, LIVE, ENDED = "callboard:run:r", "callboard:open", "callboard:live", "callboard:ended"
LONG_AGO, FAR = "1", "99999999999999"  # epoch ms

QUEUED = {"status": "queued", "action": "work", "queue": "q", "message": "m", "seal": "s"}
HELD = {**QUEUED, "status": "running", "holder": "w:1", "lease": FAR, "enqueued": LONG_AGO}
WAITING = {**QUEUED, "status": "waiting", "due": LONG_AGO, "enqueued": LONG_AGO, "group": "g"}
GO = '{"kind": "signal", "name": "go"}'
PARKED = {**WAITING, "parked": LONG_AGO, "waiting": GO, "started": LONG_AGO, "v": "3"}
OVER = {**QUEUED, "status": "failed", "again": "1", "ended": "5", "enqueued": "3", "ttl": "60000"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of one script."""

    script: str
    record: dict[str, str]  # before
    keys: list[str] = field(default_factory=lambda: [RUN, OPEN])
    arguments: list[Any]
    answer: Any
    left: dict[str, str | None]  # fields of the record after
    listed: tuple[str, bytes] | None = None  # a list and its one entry after


NAME = "work:t"
LIMITED = {**QUEUED, "status": "waiting", "waiting": '{"kind":"slot"}', "limit": "t"}
LINE = "callboard:limit:line:work:t"

CASES = [
    Case(script="lines", record=LIMITED, keys=[], arguments=[10], answer=[b"work", 1], left={}),
    Case(
        script="accept",
        record={},
        keys=[RUN, OPEN, "q", "callboard:idempotency:"],
        arguments=["r", "work", "s", "m", 10, 60000, "", 1000, "tag", "o", 3, "channel"],
        answer=[b"accepted", b"r"],
        left={"status": "queued", "caller": "tag", "reply": "channel", "max_lost": "3"},
        listed=("q", b"m"),
    ),
    Case(
        script="admit",
        record=LIMITED,
        keys=[OPEN],
        arguments=[500],
        answer=1,
        left={"status": "queued", "waiting": None, "limit": "t"},
        listed=("q", b"m"),
    ),
    Case(
        script="cancel",
        record=QUEUED,
        arguments=["r", "result", "error"],
        answer=b"queued",
        left={"status": "canceled", "result": "result", "error": "error", "again": "0"},
    ),
    Case(
        script="claim",
        record={**QUEUED, "session": "ab"},
        arguments=["r", "work", "w:1", 1000],
        answer=[b"claimed", b"s", 1, 0, b"ab", 0],
        left={"status": "running", "holder": "w:1", "attempt": "1", "lost": "0"},
    ),
    Case(
        script="claim",  # of a run whose handler waited: the same attempt goes on
        record={**QUEUED, "v": "3", "attempt": "1", "steps": "2", "spent": "70", "parked": FAR},
        arguments=["r", "work", "w:1", 1000],
        answer=[b"claimed", b"s", 1, 0, b"", 0, 2, 70, 0],
        left={"attempt": "1", "parked": None, "waited": "0", "spent": "70"},
    ),
    Case(
        script="claim",  # of one that was lost since then: another attempt
        record={**HELD, "lease": "1", "v": "3", "attempt": "1", "steps": "2", "spent": "70"},
        arguments=["r", "work", "w:2", 1000],
        answer=[b"claimed", b"s", 2, 1, b"", 0, 2, 0, 0],
        left={"attempt": "2", "spent": None},
    ),
    Case(
        script="expire",
        record={**HELD, "lease": LONG_AGO},
        arguments=["r", "result", "error"],
        answer=1,
        left={"status": "failed", "result": "result", "again": "0"},
    ),
    Case(
        script="finish",
        record={**HELD, "cancel": "1"},
        arguments=["r", "w:1", "succeeded", "result", "0", ""],
        answer=1,
        left={"status": "succeeded", "result": "result", "error": None, "cancel": None},
    ),
    Case(
        script="keep",
        record={**HELD, "steps": "1", "steps_bytes": "4"},
        keys=[RUN],
        arguments=["w:1", 2, "sealed", ""],
        answer=[b"kept"],
        left={"step:2": "sealed", "steps": "2", "steps_bytes": "10", "v": "3"},
    ),
    Case(
        script="keep",  # sent again
        record={**HELD, "step:2": "sealed", "steps": "2", "steps_bytes": "10"},
        keys=[RUN],
        arguments=["w:1", 2, "sealed", "go"],
        answer=[b"kept"],
        left={"step:2": "sealed", "steps": "2", "steps_bytes": "10", "signal:go": ""},
    ),
    Case(
        script="keep",  # the signal comes too late; sent again
        record={**HELD, "signal:go": "", "step:1": "sealed", "steps": "1", "steps_bytes": "6"},
        keys=[RUN],
        arguments=["w:1", 1, "sealed", "go"],
        answer=[b"kept"],
        left={"step:1": "sealed", "steps": "1", "steps_bytes": "6", "signal:go": ""},
    ),
    Case(
        script="keep",
        record=HELD,
        keys=[RUN],
        arguments=["w:2", 1, "sealed", ""],
        answer=[b"taken"],
        left={"step:1": None, "steps": None},
    ),
    Case(
        script="keep",
        record={**HELD, "signal:go": "come"},
        keys=[RUN],
        arguments=["w:1", 1, "sealed", "go"],
        answer=[b"signaled", b"come"],
        left={"step:1": None, "steps": None},
    ),
    Case(
        script="keep",
        record={**HELD, "steps": "1000"},
        keys=[RUN],
        arguments=["w:1", 1001, "sealed", ""],
        answer=[b"full"],
        left={"step:1001": None},
    ),
    Case(
        script="keep",
        record={**HELD, "steps_bytes": str(16 * 2**20)},
        keys=[RUN],
        arguments=["w:1", 1, "sealed", ""],
        answer=[b"full"],
        left={"step:1": None},
    ),
    Case(
        script="lose",
        record={**HELD, "lost": "1"},
        arguments=["r", "w:1"],
        answer=[2, 0],
        left={"status": "queued", "holder": None, "lost": "2"},
        listed=("q", b"m"),
    ),
    Case(
        script="note",
        record=HELD,
        keys=[RUN],
        arguments=["r", "w:1", "progress", "half"],
        answer=1,
        left={"progress": "half"},
    ),
    Case(
        script="park",
        record=HELD,
        arguments=["r", "w:1", "new seal", FAR, "{}", "", 70, 1000],
        answer=1,
        left={
            "status": "waiting",
            "waiting": "{}",
            "due": FAR,
            "seal": "new seal",
            "spent": "70",
            "holder": None,
            "lease": None,
            "v": "3",
        },
    ),
    Case(
        script="park",  # what it waits for has come meanwhile
        record={**HELD, "signal:go": "come"},
        arguments=["r", "w:1", "new seal", FAR, "{}", "yes go", 70, 1000],
        answer=1,
        left={"status": "queued", "waiting": None, "due": None, "spent": "70"},
        listed=("q", b"m"),
    ),
    Case(
        script="park",
        record=HELD,
        arguments=["r", "w:1", "new seal", LONG_AGO, "{}", "", 70, 1000],
        answer=1,
        left={"status": "queued", "enqueued": LONG_AGO},
        listed=("q", b"m"),
    ),
    Case(
        script="park",  # it is to be canceled: by whoever claims it next
        record={**HELD, "cancel": "1"},
        arguments=["r", "w:1", "new seal", FAR, "{}", "", 70, 1000],
        answer=1,
        left={"status": "queued", "cancel": "1"},
        listed=("q", b"m"),
    ),
    Case(
        script="park",
        record=HELD,
        arguments=["r", "w:2", "new seal", FAR, "{}", "", 70, 1000],
        answer=0,
        left={"status": "running", "holder": "w:1", "seal": "s"},
    ),
    Case(
        script="release",  # of a run whose handler waits: its place in lists stays
        record=PARKED,
        keys=[OPEN],
        arguments=[500, 10],
        answer=1,
        left={"status": "queued", "enqueued": LONG_AGO, "waiting": None},
        listed=("q", b"m"),
    ),
    Case(
        script="reschedule",  # not of one that has been started
        record=PARKED,
        keys=[RUN],
        arguments=["r", "new seal", 1000, 1000],
        answer=[b"waiting", 0],
        left={"status": "waiting", "seal": "s"},
    ),
    Case(
        script="release",
        record=WAITING,
        keys=[OPEN],
        arguments=[500, 10],
        answer=1,
        left={"status": "queued", "group": "g"},
        listed=("q", b"m"),
    ),
    Case(
        script="reschedule",
        record=WAITING,
        keys=[RUN],
        arguments=["r", "new seal", 1000, 1000],
        answer=[b"waiting", 1],
        left={"status": "waiting", "seal": "new seal"},
    ),
    Case(
        script="renew",
        record={**HELD, "cancel": "1"},
        keys=[OPEN],
        arguments=[1000, "r", "w:1", "r", "w:2", "unknown", "w:1"],
        answer=[b"cancel", b"taken", b"ended"],
        left={"status": "running"},
    ),
    Case(
        script="requeue",
        record=HELD,
        arguments=["r", "w:1", 0],
        answer=1,
        left={"status": "queued", "holder": None, "lease": None},
        listed=("q", b"m"),
    ),
    Case(
        script="retry",
        record={**OVER, "result": "result", "lost": "3"},
        arguments=["r", "new seal"],
        answer=1,
        left={"status": "queued", "seal": "new seal", "result": None, "lost": "0"},
        listed=("q", b"m"),
    ),
    Case(
        script="signal",
        record=PARKED,
        arguments=["r", "go", "sealed", 10, 1000],
        answer=b"kept",
        left={"status": "queued", "signal:go": "sealed", "signals": "1", "signals_bytes": "6"},
        listed=("q", b"m"),
    ),
    Case(
        script="signal",  # it waits for another one
        record=PARKED,
        arguments=["r", "stop", "sealed", 10, 1000],
        answer=b"kept",
        left={"status": "waiting", "signal:stop": "sealed"},
    ),
    Case(
        script="signal",  # the first one counts
        record={**HELD, "signal:go": "come"},
        arguments=["r", "go", "sealed", 10, 1000],
        answer=b"known",
        left={"signal:go": "come", "signals": None},
    ),
    Case(
        script="signal",
        record=OVER,
        arguments=["r", "go", "sealed", 10, 1000],
        answer=b"ended",
        left={"signal:go": None},
    ),
    Case(
        script="signal",
        record={},
        arguments=["r", "go", "sealed", 10, 1000],
        answer=b"ended",
        left={"signal:go": None},
    ),
    Case(
        script="signal",
        record={**HELD, "signals": "10"},
        arguments=["r", "go", "sealed", 10, 1000],
        answer=b"full",
        left={"signal:go": None},
    ),
    Case(
        script="sweep",  # that its handler waited does not make it late
        record={**QUEUED, "enqueued": LONG_AGO, "retried": LONG_AGO, "woken": FAR},
        keys=[OPEN, "turn"],
        arguments=[20, 1000],
        answer=[],
        left={"status": "queued"},
        listed=("q", b"m"),
    ),
    Case(
        script="sweep",
        record={**QUEUED, "enqueued": FAR},
        keys=[OPEN, "turn"],
        arguments=[20, 1000],
        answer=[],
        left={"status": "queued"},
        listed=("q", b"m"),
    ),
    Case(
        script="watch",
        record={**HELD, "watchers": "a"},
        keys=[RUN],
        arguments=["b"],
        answer=b"running",
        left={"watchers": "a b"},
    ),
    Case(
        script="page",
        record=OVER,
        keys=[LIVE],
        arguments=["work", "failed", "+inf", "", 10, 500],
        answer=[[[b"3", b"r"]], []],
        left={"status": "failed"},
    ),
    Case(
        script="settle",
        record={**OVER, "again": "0", "started": "4", "ended": FAR},
        keys=[ENDED, LIVE, "callboard:counters"],
        arguments=[f"r {FAR}", 1000],
        answer=1,
        left={"seal": None, "message": None, "action": "work"},
    ),
    Case(
        script="take",
        record={"ended": "5", "seal": "s", "result": "x"},
        keys=[ENDED, "turn"],
        arguments=["me", 10, 100, 1000],
        answer=[[b"r 5", [b"ended", b"5", b"seal", b"s", b"result", b"x"]]],
        left={"ended": "5"},
        listed=(ENDED, b"r 5"),
    ),
    Case(
        script="take",  # signals stay behind
        record={"ended": "5", "steps": "1", "step:1": "a", "signal:go": "b"},
        keys=[ENDED, "turn"],
        arguments=["me", 10, 100, 1000],
        answer=[[b"r 5", [b"ended", b"5", b"steps", b"1", b"step:1", b"a"]]],
        left={"ended": "5", "step:1": "a"},
        listed=(ENDED, b"r 5"),
    ),
    Case(
        script="take",  # and steps that are large
        record={"ended": "5", "steps": "1", "step:1": "a", "steps_bytes": "126"},
        keys=[ENDED, "turn"],
        arguments=["me", 10, 100, 1000],
        answer=[[b"r 5", [b"ended", b"5", b"steps", b"1", b"steps_bytes", b"126"]]],
        left={"ended": "5", "step:1": "a"},
        listed=(ENDED, b"r 5"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.script)
def test_a_script_by_itself(case: Case, redis_client: redis.Redis) -> None:
    if case.record:
        redis_client.hset(RUN, mapping=case.record)
        redis_client.zadd(OPEN, {"r": 1})
        redis_client.zadd(LIVE, {"r": 3})
        if case.record.get("status") == "waiting":
            redis_client.zadd(KEYS.due, {"r": 1})
    if case.record.get("limit"):
        redis_client.zadd(LINE, {"r": 1})
        redis_client.zadd(KEYS.limited, {NAME: 1})
    if ended := case.record.get("ended"):
        redis_client.rpush(ENDED, f"r {ended}")
    answer = redis_client.eval(
        TEXTS[case.script], len(case.keys), *case.keys, *map(str, case.arguments)
    )
    assert answer == case.answer
    found = {name: redis_client.hget(RUN, name) for name in case.left}
    assert {
        name: None if value is None else value.decode() for name, value in found.items()
    } == case.left
    if case.listed:
        name, entry = case.listed
        assert redis_client.lrange(name, 0, -1) == [entry]


def test_each_file_is_a_script_with_a_case_or_a_part() -> None:
    files = {file.stem for file in FOLDER.glob("*.lua")}
    assert files == PARTS | TEXTS.keys()
    assert {case.script for case in CASES} == TEXTS.keys()
