"""``SCHEDULES`` is checked at start: each mistake is told, with the entry and its file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from callboard import ActionResult, Schedule, action, ok
from callboard.errors import ConfigurationError
from callboard.registry import get_registry
from callboard.schedules.check import check_schedules
from callboard.settings import get_settings


class Report(BaseModel):
    days: int


@action
def send_report(ctx: Any, params: Report) -> ActionResult:
    return ok()


@action
def tidy(ctx: Any) -> ActionResult:
    return ok()


def check(*entries: Any) -> None:
    actions = {"sendReport": send_report, "tidy": tidy}
    check_schedules(entries, actions, "actions/schedules.py")


def test_what_is_right_passes() -> None:
    check(
        Schedule("a", "tidy", every_minutes=1),
        Schedule("b", "tidy", every_minutes=10_080, catch_up="all", overlap="allow", paused=True),
        Schedule("c", "sendReport", cron="0 9 * * 1-5", timezone="UTC", params={"days": 1}),
        Schedule("d", "tidy", cron="0 0 29 2 *", timezone="America/New_York"),
        Schedule("e", "tidy", cron="30 2 L * *", timezone="Pacific/Chatham"),
    )


CRON: dict[str, Any] = {"cron": "0 9 * * *", "timezone": "UTC"}
EVERY: dict[str, Any] = {"every_minutes": 5}


@pytest.mark.parametrize(
    ("name", "action_name", "options", "told"),
    [
        ("", "tidy", EVERY, "a name is a letter"),
        ("a b", "tidy", EVERY, "a name is a letter"),
        (7, "tidy", EVERY, "a name is a letter"),
        ("s", "tidy", {}, r"either every_minutes, or cron and timezone \(neither given\)"),
        ("s", "tidy", {**EVERY, **CRON}, r"\(both given\)"),
        ("s", "tidy", {**EVERY, "timezone": "UTC"}, "timezone goes with cron"),
        ("s", "tidy", {"every_minutes": 0}, r"every_minutes must be 1\.\.10080, not 0"),
        ("s", "tidy", {"every_minutes": 10_081}, "not 10081"),
        ("s", "tidy", {"every_minutes": 1.5}, "must be a whole number, not 1.5"),
        ("s", "tidy", {"every_minutes": True}, "must be a whole number, not True"),
        ("s", "tidy", {**CRON, "cron": "0 9 * *"}, "write 5 fields"),
        ("s", "tidy", {**CRON, "cron": "0 0 9 * * *"}, "write 5 fields"),
        ("s", "tidy", {**CRON, "cron": "@daily"}, "write 5 fields"),
        ("s", "tidy", {**CRON, "cron": 5}, "write 5 fields"),
        ("s", "tidy", {**CRON, "cron": "60 9 * * *"}, "cron '60 9 .*: Bad minute"),
        ("s", "tidy", {**CRON, "cron": "0 0 30 2 *"}, "'0 0 30 2 .*: Bad day-of-month"),
        ("s", "tidy", {**CRON, "cron": "0 0 31 4,6,9,11 *"}, "Bad day-of-month"),
        ("s", "tidy", {**CRON, "cron": "1" + ",1" * 500 + " * * * *"}, "1,009 characters, at most"),
        ("s", "tidy", {**CRON, "timezone": "z" * 999}, "unknown timezone 'z{79}: give"),
        ("s", "tidy", {"cron": "0 9 * * *"}, "cron needs a timezone"),
        ("s", "tidy", {**CRON, "timezone": "America/New_Yorck"}, "mean 'America/New_York'"),
        ("s", "tidy", {**CRON, "timezone": "America"}, "unknown timezone 'America'"),
        ("s", "tidy", {**CRON, "timezone": "../../etc/passwd"}, "unknown timezone"),
        ("s", "tidy", {**CRON, "timezone": 3}, "unknown timezone 3"),
        ("s", "tidi", EVERY, r"Unknown action 'tidi'\. Did you mean 'tidy'\?"),
        ("s", tidy, EVERY, "action must be the name of an action"),
        ("s", "sendReport", EVERY, "days: Field required .*'sendReport'"),
        ("s", "tidy", {**EVERY, "params": [1]}, "params must be a dict"),
        ("s", "tidy", {**EVERY, "params": {"a": {1}}}, "params are no JSON object"),
        ("s", "tidy", {**EVERY, "paused": 1}, "paused must be True or False"),
        ("s", "tidy", {**EVERY, "catch_up": "some"}, "catch_up must be one of none, last, all"),
        ("s", "tidy", {**EVERY, "overlap": "wait"}, "overlap must be one of skip, allow"),
    ],
)
def test_a_mistake_names_the_entry(
    name: Any, action_name: Any, options: dict[str, Any], told: str
) -> None:
    wrong = Schedule(name, action_name, **options)
    with pytest.raises(ConfigurationError, match=told) as error:
        check(Schedule("right", "tidy", every_minutes=1), wrong)
    assert str(error.value).startswith(f"actions/schedules.py: SCHEDULES[1] {name!r}: ")


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        check({"name": "s"}, Schedule("s", "tidy", every_minutes=0), Schedule("s", "x", **EVERY))
    assert [line.partition("SCHEDULES")[2][:3] for line in str(error.value).splitlines()] == [
        "[0]",
        "[1]",
        "[2]",
        "[2]",
    ]
    assert "the name 's' is taken" in str(error.value)


def test_schedules_need_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The actions of this repository have schedules."""
    for name, value in {
        "REDIS_URL": "redis://127.0.0.1/0",
        "MONGODB_URI": "mongodb://127.0.0.1/callboard",
        "SECRET_KEY": "k" * 40,
        "JWT_SECRET": "j" * 40,
        "OWNER_USER_ID": "",
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    get_registry.cache_clear()
    with pytest.raises(ConfigurationError, match="set OWNER_USER_ID"):
        get_registry()
    get_settings.cache_clear()
