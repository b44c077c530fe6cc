"""Params: every annotation that pydantic validates as an object is validated, from the JSON."""

import asyncio
import datetime
import decimal
import enum
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Optional, TypeVar, Union

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    model_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from callboard import action, ok
from callboard.errors import ConfigurationError, InvalidParams
from callboard.sdk.action import Action
from callboard.sdk.params import MAX_ISSUES

if TYPE_CHECKING:
    from callboard import ActionContext, ActionResult

T = TypeVar("T")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    age: int


@dataclass
class Point:
    x: int


class Row(TypedDict):
    x: int


class Box(BaseModel, Generic[T]):
    x: T


class Tree(BaseModel):
    x: int = 0
    kids: list["Tree"] = []


def typed(annotation: Any) -> Action:
    def handler(ctx: Any, params: Any) -> Any:
        return ok()

    handler.__annotations__["params"] = annotation
    return action(handler)


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        (Cat, {"kind": "cat", "lives": 9}, {"kind": "cow"}),
        (Cat | Dog, {"kind": "dog", "age": 3}, {"kind": "cow", "delete": "everything"}),
        (Annotated[Union[Cat, Dog], Field(discriminator="kind")],  # noqa: UP007 - as many write
         {"kind": "dog", "age": 3}, {"kind": "cow"}),
        (Optional[Cat], {"kind": "cat", "lives": 9}, {}),  # noqa: UP045
        (Annotated[Cat, Field(description="a cat")], {"kind": "cat", "lives": 9}, {}),
        (Point, {"x": 1}, {"x": "no number"}),
        (Row, {"x": 1}, {"x": "no number"}),
        (Box[int], {"x": 1}, {"x": "no number"}),
        (RootModel[dict[str, int]], {"a": 1}, {"a": "no number"}),
        (RootModel[Cat], {"kind": "cat", "lives": 9}, {}),
        (dict[str, int], {"a": 1}, {"a": "no number"}),
        (Mapping[str, int], {"a": 1}, {"a": "no number"}),
        (Annotated[dict[str, Any], Field(max_length=1)], {"a": 1}, {"a": 1, "b": 2}),
        (Tree, {"kids": [{"x": 1}]}, {"kids": [{"kids": [{"x": "no number"}]}]}),
        ("Cat", {"kind": "cat", "lives": 9}, {}),
        ("Box[int] | None", {"x": 1}, {"x": "no number"}),
    ],
)  # fmt: skip
def test_what_pydantic_validates_as_an_object_is_validated(
    annotation: Any, right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    act = typed(annotation)
    assert act.params
    act.params.check()
    act.validate(right)
    with pytest.raises(InvalidParams) as caught:
        act.validate(wrong)
    assert all(isinstance(issue["path"], str) for issue in caught.value.issues)
    assert "everything" not in str(caught.value.issues)


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], Mapping, Mapping[str, Any], Any])
def test_an_annotation_that_says_no_more_is_the_body_itself(annotation: Any) -> None:
    act, body = typed(annotation), {"a": [1]}
    assert act.params
    act.params.check()
    assert act.validate(body) is body


@pytest.mark.parametrize(
    "annotation",
    [str, int, list[int], set[int], tuple[int, int], None, bytes, datetime.datetime, Literal["a"],
     RootModel[list[int]], type, "Nope", "list[Cat]", Exception, TypedDict, Annotated[int, "x"]],
)  # fmt: skip
def test_one_that_cannot_be_used_refuses_the_start(annotation: Any) -> None:
    act = typed(annotation)
    assert act.params
    with pytest.raises(ConfigurationError, match=r"test_params\.py:\d+: .*params.*cannot be used"):
        act.params.check()


def test_only_the_annotation_of_params_matters() -> None:
    def handler(ctx: "ActionContext", params: "Cat") -> "ActionResult": ...

    act = action(handler)
    assert act.params
    act.params.check()
    assert act.validate({"kind": "cat", "lives": 9}) == Cat(kind="cat", lives=9)

    def unseen(ctx: "ActionContext", params: "ActionContext") -> "ActionResult": ...

    refused = action(unseen).params
    assert refused
    with pytest.raises(ConfigurationError, match=r"'ActionContext' is not defined.*TYPE_CHECKING"):
        refused.check()


class Color(enum.Enum):
    red = "red"


class Order(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime.datetime
    id: uuid.UUID
    color: Color
    pair: tuple[int, int]


class Blob(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64")
    data: bytes
    amount: decimal.Decimal = decimal.Decimal(0)


def test_bodies_are_validated_in_jsons_mode() -> None:
    body = {
        "at": "2026-01-02T03:04:05Z",
        "id": "6f0d7ad6-9d0c-5c3e-9f3b-0a8b9ad4c1de",
        "color": "red",
        "pair": [1, 2],
    }
    order = typed(Order).validate(body)
    assert (order.at.year, order.color, order.pair) == (2026, Color.red, (1, 2))
    with pytest.raises(InvalidParams):
        typed(Order).validate({**body, "pair": ["1", 2]})
    blob = typed(Blob).validate({"data": "aGVsbG8=", "amount": 0.1})
    assert (blob.data, blob.amount) == (b"hello", decimal.Decimal("0.1"))


class Person(BaseModel):
    name: str

    @model_validator(mode="before")
    @classmethod
    def joined(cls, data: Any) -> Any:
        data["name"] = data.pop("first") + " " + data.pop("last")
        data["more"] = [data]
        return data


def test_a_validator_cannot_change_the_body_nor_see_its_own_output() -> None:
    act, body = typed(Person), {"first": "Ada", "last": "L"}
    for _ in range(2):  # in the API, and in the worker
        assert act.validate(body).name == "Ada L"
    assert body == {"first": "Ada", "last": "L"}


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    event_id: str
    attendee_id: str


class Aliased(BaseModel):
    a: int = Field(alias="A")
    b: int = Field(0, validation_alias=AliasChoices("B", AliasPath("deep", "b")))


@pytest.mark.parametrize(
    ("annotation", "params", "shown"),
    [
        (Camel, {"eventId": "e", "attendeeId": "a", "x": 1}, "{eventId: ***, attendeeId: ***}"),
        (Camel, {"event_id": "e"}, "{event_id: ***}"),
        (Aliased, {"A": 1, "deep": {"b": 2}}, "{A: ***, deep: ***}"),
        (Cat | Dog, {"kind": "dog", "age": 1}, "{kind: ***, age: ***}"),
        (RootModel[Cat], {"lives": 1}, "{lives: ***}"),
        (Optional[Row], {"x": 1}, "{x: ***}"),  # noqa: UP045
        (Point, {"x": 1, "canary": 2}, "{x: ***}"),
        (Tree, {"kids": []}, "{kids: ***}"),
        (dict[str, int], {"canary": 1}, "{1 fields}"),
        (dict, {"canary": 1}, "{1 fields}"),
        (dict, {}, "{}"),
    ],
)
def test_what_is_displayed_is_the_names_that_are_declared(
    annotation: Any, params: dict[str, Any], shown: str
) -> None:
    assert typed(annotation).display(params) == shown


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[int] = []


@pytest.mark.parametrize(
    ("annotation", "params"),
    [
        (Strict, {"items": [""] * 260_000}),
        (Strict, {f"k{n}": 1 for n in range(80_000)}),
        (dict[str, int], {f"k{n}": "" for n in range(80_000)}),
        (dict[str, list[int]], {"k" * 300: [""] * 90_000}),
        (dict[str, list[int]], {"k" * 600_000: [""] * 100_000}),  # 60 GB of paths
        (Tree, {"kids": [{"kids": 0, "x": ""}] * 30_000}),
        (dict[str, int], {"ü" * 10_000 + str(n): "" for n in range(50)}),
    ],
)
def test_the_issues_are_bounded_however_many_there_are(
    annotation: Any, params: dict[str, Any]
) -> None:
    act = typed(annotation)
    assert act.params
    act.params.check()
    started = time.process_time()
    with pytest.raises(InvalidParams) as caught:
        act.validate(params)
    assert time.process_time() - started < 0.5  # 0.1 s on a machine that does nothing else
    assert 1 <= len(caught.value.issues) <= MAX_ISSUES
    body = {"success": False, "error": str(caught.value), "issues": caught.value.issues}
    assert len(json.dumps(body, ensure_ascii=False).encode()) <= 64 * 1024


def test_the_first_issues_are_told_and_how_many_there_are() -> None:
    with pytest.raises(InvalidParams, match=r"items\.0: .*the first 100 of 101 issues") as caught:
        typed(Strict).validate({"items": ["x"] * 101})
    assert [issue["path"] for issue in caught.value.issues] == [f"items.{n}" for n in range(100)]
    with pytest.raises(InvalidParams) as caught:
        typed(Strict).validate({"items": ["x"] * 2})
    assert "issues" not in str(caught.value)
    assert [issue["path"] for issue in caught.value.issues] == ["items.0", "items.1"]


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_validator_ends_nothing_but_its_own_call(error: type[BaseException]) -> None:
    class Ends(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def end(cls, _: Any) -> Any:
            raise error

    with pytest.raises(RuntimeError, match=f"a validator raised {error.__name__}"):
        typed(Ends).validate({})
