"""The params of the call that `callboard up` prints fit the action's model, or are not printed."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from callboard import ActionContext, ActionResult, action, ok
from callboard.preflight import DeclaredAction
from callboard.sdk.example import example_params
from callboard.stack.banner import example


class Inner(BaseModel):
    code: Annotated[str, Field(min_length=8, max_length=9)]
    count: Annotated[int, Field(gt=5)]


class Order(BaseModel):
    name: str
    day: date
    kind: Literal["a", "b"]
    inner: Inner
    lines: Annotated[list[Inner], Field(min_length=2)]
    either: int | str
    shown: Annotated[str, Field(examples=["Ada"])]
    note: str | None = None


class Itself(BaseModel):
    child: Itself


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def check(cls, value: str) -> str:
        raise ValueError("never")


@action
def order(ctx: ActionContext, params: Order) -> ActionResult[Any]:
    return ok()


@action
def itself(ctx: ActionContext, params: Itself) -> ActionResult[Any]:
    return ok()


@action
def picky(ctx: ActionContext, params: Picky) -> ActionResult[Any]:
    return ok()


@action
def anything(ctx: ActionContext) -> ActionResult[Any]:
    return ok()


def test_required_fields_get_values_of_their_types() -> None:
    made = example_params(order)
    assert made is not None
    assert made["name"] == "name"
    assert made["shown"] == "Ada"
    assert made["kind"] == "a"
    assert len(made["lines"]) == 2
    assert "note" not in made
    order.validate(made)


@pytest.mark.parametrize("difficult", [itself, picky])
def test_what_no_guess_fits_has_no_example(difficult: Any) -> None:
    assert example_params(difficult) is None


def test_without_a_model_nothing_is_needed() -> None:
    assert example_params(anything) == {}


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ({"a": {"x": 1}, "b": {}, "ensureUserRow": {}}, ("ensureUserRow", {})),
        ({"a": {"x": 1}, "b": {}}, ("b", {})),
        ({"a": None, "b": {"x": 1}}, ("b", {"x": 1})),
        ({"a": None, "b": None}, ("a", {})),
    ],
)
def test_the_banner_shows_what_works(declared: dict[str, Any], shown: tuple[str, Any]) -> None:
    rows = [DeclaredAction(name=name, example=made) for name, made in declared.items()]
    assert example(rows) == shown
