"""The OpenAPI document and the live API agree: no status, body or header that it does not name."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from local_stack import Stack
from openapi_spec_validator import validate
from schemathesis import APIOperation, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

REQUESTS = 10  # per operation and mode
NO_TOKEN_NO_PARAMETERS = {"GET /healthz", "GET /readyz"}  # nothing about these can be wrong
FOR_ALL_RUNS = {"POST /api/runs/bulk"}  # a right one calls again what other tests have called
NEEDS_AN_UPSTREAM = {"POST /api/actions/listMyApps"}  # and this stack names none
CONFORMANCE = [
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
]


@pytest.fixture(scope="session")
def document(stack: Stack) -> dict[str, Any]:
    """As the running API serves it."""
    served: dict[str, Any] = httpx.get(f"{stack.url}/api/openapi.json", timeout=60).json()
    return served


@pytest.fixture(scope="session")
def checks() -> list[Any]:
    load_all_checks()
    return list(CHECKS.get_by_names(CONFORMANCE))


def test_the_document_is_valid_openapi(document):
    validate(document)
    assert document["openapi"].startswith("3.1.")


def test_it_says_what_the_code_says_of_an_action(document):
    invite = document["paths"]["/api/actions/inviteAttendee"]["post"]
    assert invite["summary"] == "Add an attendee to an event, once."
    schema = invite["requestBody"]["content"]["application/json"]["schema"]
    model = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert model["required"] == ["eventId", "attendeeId"]
    assert invite["security"] == [{"bearer": []}]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_generated_requests_get_documented_responses(stack, document, checks, mode):
    """As the owner, who may ask for everything. A 5xx is a bug, but for 503 and 504."""
    headers = {"Authorization": f"Bearer {stack.token('owner')}"}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.label in (NO_TOKEN_NO_PARAMETERS if mode.is_negative else FOR_ALL_RUNS):
            continue
        if operation.label not in NEEDS_AN_UPSTREAM:
            _request(operation, mode, checks, base_url=stack.url, headers=headers)


def _request(
    operation: APIOperation, mode: GenerationMode, checks: list[Any], **options: Any
) -> None:
    @settings(
        max_examples=REQUESTS,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(mode))
    def request(case: schemathesis.Case) -> None:
        response = case.call(timeout=60, **options)
        assert response.status_code < 500 or response.status_code in (503, 504), response.text
        case.validate_response(response, checks=checks)

    request()


def test_runs_and_schedules_that_exist_look_as_documented(stack, document, checks):
    """Generated ids exist nowhere, so those of real runs and schedules are put in."""
    run_id = stack.call("ensureUserRow", as_user="owner").headers["Run-Id"]
    headers = {"Authorization": f"Bearer {stack.token('owner')}"}
    real = {"runId": run_id, "name": "heartbeat"}
    answers = {}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if "{" in operation.path:
            names = re.findall(r"{(\w+)}", operation.path)
            body = {"body": {"delay": 5}} if operation.path.endswith("/reschedule") else {}
            case = operation.Case(path_parameters={name: real[name] for name in names}, **body)
            response = case.call(base_url=stack.url, headers=headers, timeout=60)
            case.validate_response(response, checks=checks)
            answers[operation.label] = response.status_code
    assert answers.pop("POST /api/runs/{runId}/retry") == 409
    assert answers.pop("POST /api/runs/{runId}/reschedule") == 409
    assert answers.pop("POST /api/runs/{runId}/signals/{name}") == 404  # the run has ended
    assert answers.pop("POST /api/runs/{runId}/replay") == 202
    assert answers.pop("POST /api/internal/{name}") == 404  # there is no such action
    assert answers.pop("POST /api/schedules/{name}/trigger") == 202
    assert set(answers.values()) == {200}


def test_a_caller_without_a_token_gets_documented_responses(stack, document, checks):
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.label.startswith("POST /api/actions/"):
            case = operation.Case(body={}, media_type="application/json")
            response = case.call(base_url=stack.url, timeout=60)
            case.validate_response(response, checks=checks)
            assert response.status_code == 401
