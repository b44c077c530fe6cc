"""The OpenAPI document: what it makes of actions, and that it leaves no route out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypedDict

from api.app import create_app
from api.pages.openapi import build_document
from callboard import ActionContext, ActionResult, action, ok
from callboard.client.typescript import typescript_client
from callboard.registry import Registry
from callboard.settings import Settings
from callboard.types import Created

SETTINGS = {
    "REDIS_URL": "redis://127.0.0.1:1/0",  # nothing here connects
    "MONGODB_URI": "mongodb://127.0.0.1:1/test",
    "SECRET_KEY": "a-secret-key-of-at-least-32-characters",
    "JWT_SECRET": "a-shared-secret-of-at-least-32-bytes",
}
JWT_SECRET = "test-secret-of-more-than-thirty-two-bytes"  # that of `make_token`
FOR_PEOPLE = {"/", "/docs", "/metrics", "/api/openapi.json"}
FILES = ("/docs/", "/console/", "/signals/")


class Run(BaseModel):
    """Takes the name of one of the document's own schemas."""

    miles: float
    callback: Callable[[], None] | None = None  # no JSON Schema has a word for it


class Summary(BaseModel):
    total: int


@action
def log_run(ctx: ActionContext, params: Run) -> ActionResult[Summary]:
    """Log a run.

    Once per day.
    """
    return ok({"total": 1})


@action(anonymous=True)
def look(ctx: ActionContext) -> ActionResult:
    return ok()


@action(owner_only=True, transaction=True)
def settle(ctx: ActionContext, params: dict[str, Any]) -> ActionResult:
    return ok()


@action(internal=True)
def log_runs(ctx: ActionContext) -> ActionResult:
    return ok()


REGISTRY = Registry(actions={found.name: found for found in (log_run, look, settle, log_runs)})


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document(REGISTRY)


@pytest.fixture
def operation(document):
    return lambda name: document["paths"][f"/api/actions/{name}"]["post"]


def test_it_is_valid(document):
    validate(document)


def test_an_internal_action_is_nowhere(document):
    assert "logRuns" not in str(document)
    assert "logRuns" not in typescript_client(document)


def test_the_docstring_is_the_description(operation):
    assert operation("logRun")["summary"] == "Log a run."
    assert "Once per day." in operation("logRun")["description"]
    assert operation("look")["summary"] == "look"


def test_a_model_keeps_clear_of_the_names_of_the_document(document, operation):
    body = operation("logRun")["requestBody"]
    assert body["required"]
    schema = body["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/RunModel"}
    assert document["components"]["schemas"]["RunModel"]["required"] == ["miles"]
    assert "runId" in document["components"]["schemas"]["Run"]["properties"]


def test_the_annotation_of_the_result_is_its_schema(operation):
    schema = operation("logRun")["responses"]["200"]["content"]["application/json"]["schema"]
    success = schema["anyOf"][0]
    assert success["properties"]["data"] == {"$ref": "#/components/schemas/Summary"}


def test_a_raw_action_takes_any_content():
    def receive(ctx: ActionContext) -> ActionResult:
        return ok()

    document = build_document(Registry(actions={"receive": action(raw=True)(receive)}))
    validate(document)
    operation = document["paths"]["/api/actions/receive"]["post"]
    assert "*/*" in operation["requestBody"]["content"]
    assert "Takes any content." in operation["description"]
    assert "431" in operation["responses"]
    assert "receive: { params: unknown;" in typescript_client(document)


def test_what_a_tool_answers_is_a_schema():
    def keep(ctx: ActionContext) -> ActionResult[Created]:
        return ctx.tools.create("items", {})

    document = build_document(Registry(actions={"keep": action(keep)}))
    validate(document)
    assert document["components"]["schemas"]["Created"]["required"] == ["recordId"]
    assert "data: Models.Created" in typescript_client(document)


def test_an_action_without_a_model_takes_any_object_or_none(operation):
    body = operation("settle")["requestBody"]
    assert not body["required"]
    assert body["content"]["application/json"]["schema"] == {"type": "object"}


def test_who_may_call_is_said(operation):
    assert operation("look")["security"] == [{"bearer": []}, {}]
    assert operation("settle")["security"] == [{"bearer": []}]
    assert "403" in operation("settle")["responses"]
    assert "403" not in operation("look")["responses"]


@pytest.fixture
def make_app():
    def make(**variables: str):
        return create_app(Settings(**{**SETTINGS, **variables}), REGISTRY)

    return make


def test_a_run_that_no_key_opens_is_documented_wherever_a_run_is_read(document):
    of_a_run = {
        (path, method): operation["responses"]
        for path, operations in document["paths"].items()
        if "{runId}" in path or path.startswith("/api/actions/")
        for method, operation in operations.items()
    }
    assert len(of_a_run) > 8
    assert [where for where, responses in of_a_run.items() if "410" not in responses] == []


def test_every_route_is_documented(make_app, document):
    routes = {
        (re.sub(r"<[^>]+>", "{}", rule.rule), method.lower())
        for rule in make_app(CALLBOARD_ENV="development").url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in FOR_PEOPLE and not rule.rule.startswith(FILES)
    }
    routes.discard(("/api/runs/{}/signals/{}", "get"))  # a page, for people
    routes.discard(("/api/actions/{}", "post"))
    documented = {
        (re.sub(r"{[^}]+}", "{}", path), method)
        for path, item in document["paths"].items()
        for method in item
    }
    assert routes == documented


PAGES = (
    "/",
    "/console/console.js",
    "/docs",
    "/docs/static/docs.js",
    "/docs/swagger/swagger-ui.css",
)


@pytest.mark.parametrize("path", [*PAGES, "/api/openapi.json"])
def test_in_production_nothing_is_shown_unless_it_is_asked_for(make_app, path):
    assert make_app().test_client().get(path).status_code == 404
    with make_app(CALLBOARD_ENV="development").test_client().get(path) as response:
        assert response.status_code == 200


def test_the_docs_bring_the_document_along(make_app):
    client = make_app(CALLBOARD_DOCS="true").test_client()
    assert client.get("/docs").status_code == 200
    assert client.get("/api/openapi.json").json["openapi"] == "3.1.0"
    assert client.get("/").status_code == 404


def test_for_the_console_alone_the_document_needs_a_token(make_app, make_token):
    client = make_app(CALLBOARD_CONSOLE="true", JWT_SECRET=JWT_SECRET).test_client()
    assert client.get("/").status_code == 200
    assert client.get("/api/openapi.json").status_code == 401
    headers = {"Authorization": f"Bearer {make_token()}"}
    assert client.get("/api/openapi.json", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_allows_no_script_but_this_servers_own(make_app, path):
    response = make_app(CALLBOARD_ENV="development").test_client().get(path)
    policy = dict(
        directive.split(" ", 1)
        for directive in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "<script>" not in response.text


def test_only_the_files_of_swagger_ui_are_served(make_app):
    client = make_app(CALLBOARD_ENV="development").test_client()
    assert client.get("/docs/swagger/VERSION").status_code == 404
    assert client.get("/docs/swagger/..%2f__init__.py").status_code == 404


class Kitten(BaseModel):
    kind: Literal["kitten"]
    lives: int = 9


class Puppy(BaseModel):
    kind: Literal["puppy"]
    years: int = Field(alias="ageInYears")


@dataclass
class Point:
    x: int


class Row(TypedDict, total=False):
    x: int


@pytest.mark.parametrize(
    ("annotation", "required", "typescript"),
    [
        (Kitten | Puppy, True, "Models.Kitten | Models.Puppy"),
        (
            Annotated[Kitten | Puppy, Field(discriminator="kind")],
            True,
            "Models.Kitten | Models.Puppy",
        ),
        (Kitten | None, True, "Models.Kitten"),  # a body is no null
        (Point, True, "Models.Point"),
        (Row, False, "Models.Row"),
        (RootModel[dict[str, int]], False, "Models.RootModel_dict_str__int__"),
        (dict[str, int], False, "{ [name: string]: number }"),
        (Mapping[str, Any], False, "{ [name: string]: unknown }"),
    ],
)
def test_each_kind_of_params_is_in_the_document_and_the_client(
    annotation: Any, required: bool, typescript: str
) -> None:
    def handler(ctx: Any, params: Any) -> Any:
        return ok()

    handler.__annotations__["params"] = annotation
    document = build_document(Registry(actions={"handler": action(handler)}))
    validate(document)
    body = document["paths"]["/api/actions/handler"]["post"]["requestBody"]
    assert body["required"] is required
    client = typescript_client(document)
    assert f"handler: {{ params: {typescript}; data: unknown; code: string }};" in client
    assert "ageInYears: number;" in client or "Puppy" not in typescript
