"""How runs end: what a caller reads, and that it survives the seal's plain bytes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from callboard import ActionResult, fail, ok
from callboard.runs.outcome import MAX_RESULT_BYTES, Outcome

RUN = "11111111-1111-4111-8111-111111111111"


async def forgets_to_wait() -> ActionResult:
    return ok()


@pytest.mark.parametrize(
    ("result", "status"), [(ok({"a": [1, None, "ü"]}), "succeeded"), (fail("No"), "failed")]
)
def test_a_result_is_answered_as_it_is(result: ActionResult, status: str) -> None:
    outcome = Outcome.of(result, RUN)
    assert (outcome.http_status, outcome.status, outcome.retryable) == (200, status, False)
    assert json.loads(outcome.body) == result.envelope()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "the handler returned nothing"),
        ({"success": True}, "the handler returned a dict"),
        (forgets_to_wait(), "returned what forgets_to_wait() is before it is awaited"),
        (ok({"a": [object()]}), "data.a.0: a object is not JSON"),
        (ok(float("nan")), "data: nan is not JSON"),
        (ok("\ud800"), "data: half of a surrogate pair"),
        (fail("\ud800"), "error: half of a surrogate pair"),
    ],
)
def test_what_is_no_result_or_no_json_is_action_failed(result: Any, reason: str) -> None:
    outcome = Outcome.of(result, RUN)
    assert reason in str(outcome.reason)
    assert (outcome.http_status, outcome.envelope()) == (
        500,
        {"success": False, "error": "Action failed", "code": "action_failed", "runId": RUN},
    )


def test_a_result_over_the_limit_is_refused() -> None:
    fitting = "x" * (MAX_RESULT_BYTES - len('{"success":true,"data":""}'))
    assert Outcome.of(ok(fitting), RUN).http_status == 200
    outcome = Outcome.of(ok(fitting + "x"), RUN)
    assert outcome.envelope()["error"] == "Result too large"
    assert "1,048,577 bytes" in str(outcome.reason)


def test_a_failure_is_explained_within_bounds() -> None:
    outcome = Outcome.failed("Action failed", RUN).explained("x" * 100_000 + "\ud800 the end")
    envelope = outcome.envelope()
    assert envelope.pop("debug").endswith("x? the end")
    assert envelope == Outcome.failed("Action failed", RUN).envelope()
    assert len(outcome.body) < 20_000


def test_a_nest_without_end_is_refused() -> None:
    nest: list[Any] = []
    nest.append(nest)
    assert Outcome.of(ok(nest), RUN).http_status == 500


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.of(ok("a\nb"), RUN),
        Outcome.of(fail("No", "no_seats"), RUN),
        Outcome.failed("Worker lost", RUN, retryable=True),
        Outcome.unavailable("away", RUN),
        Outcome.canceled(RUN),
    ],
)
def test_an_outcome_survives_its_bytes(outcome: Outcome) -> None:
    assert Outcome.from_bytes(outcome.to_bytes()) == outcome


ENDS = [
    (Outcome.failed("Action failed", RUN), "action_failed"),
    (Outcome.failed("Timed out after 30 s", RUN), "timed_out"),
    (Outcome.lost(RUN), "worker_lost"),
    (Outcome.failed("Result too large", RUN), "result_too_large"),
    (Outcome.failed("Expired", RUN), "expired"),
    (Outcome.failed("What no version says", RUN), "action_failed"),
    (Outcome.unavailable("away", RUN), "unavailable"),
    (Outcome.canceled(RUN), "canceled"),
    (Outcome.of(fail("Timed out, says the handler"), RUN), "failed"),
    (Outcome.of(fail("No", "no_seats"), RUN), "no_seats"),
]


@pytest.mark.parametrize(("outcome", "code"), ENDS)
def test_each_failure_has_a_code(outcome: Outcome, code: str) -> None:
    assert outcome.envelope()["code"] == code
    assert outcome.result() == fail(str(outcome.error), code)


@pytest.mark.parametrize(("outcome", "code"), ENDS)
def test_one_that_was_stored_without_a_code_has_it_when_it_is_read(
    outcome: Outcome, code: str
) -> None:
    told = {name: value for name, value in outcome.envelope().items() if name != "code"}
    stored = replace(outcome, body=json.dumps(told).encode()).to_bytes()
    read = Outcome.from_bytes(stored).envelope()
    assert list(read)[:3] == ["success", "error", "code"]
    assert read == {**told, "code": "failed" if code == "no_seats" else code}


def test_a_success_is_read_as_it_was_stored() -> None:
    body = b'{"success": true,  "data": {"code": null}}'  # not even its spaces change
    assert Outcome.from_bytes(b"200 succeeded 0\n" + body).body == body
