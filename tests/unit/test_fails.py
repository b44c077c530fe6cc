"""The codes that a handler declares: in its annotation, or in its docstring's list."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from openapi_spec_validator import validate

from api.pages.openapi import build_document
from callboard import ActionContext, ActionResult, AsyncActionContext, Fails, action, fail, ok
from callboard.client.typescript import typescript_client
from callboard.errors import ConfigurationError
from callboard.registry import Registry
from callboard.sdk.fails import declared_codes
from callboard.types import Created

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]  # as a type checker sees it


def annotated(
    ctx: ActionContext,
) -> Annotated[ActionResult[Created], Fails["no_seats", "too_late"]]:
    return fail("All seats are taken", "no_seats")


async def one(ctx: AsyncActionContext) -> Annotated[ActionResult, "a note", Fails["no_seats"]]:
    return ok()


def listed(ctx: ActionContext) -> ActionResult[Created]:
    """Book a seat.

    Fails:
        no_seats: all are taken; come
            another evening
        - `too_late`: the event has begun

        ``no_event``

    It is booked for a day.
    """
    return ok()


def both(ctx: ActionContext) -> Annotated[ActionResult, Fails["no_seats"]]:
    """Book a seat.

    Fails:
        too_late: the event has begun
        no_seats: all are taken
    """
    return ok()


def unresolved(ctx: Unknown) -> Annotated[ActionResult, Fails["no_seats"]]:
    return ok()


def unknown(ctx: ActionContext) -> Annotated[ActionResult[Unknown], Fails["no_seats"]]:
    """What it returns is known to a type checker alone.

    Fails:
        too_late
    """
    return ok()


def none(ctx: ActionContext) -> ActionResult:
    """Fails: where nothing is left, and Fails: a sentence."""
    return ok()


@pytest.mark.parametrize(
    ("handler", "codes"),
    [
        (annotated, ("no_seats", "too_late")),
        (one, ("no_seats",)),
        (listed, ("no_seats", "too_late", "no_event")),
        (both, ("no_seats", "too_late")),
        (unresolved, ("no_seats",)),
        (unknown, ("too_late",)),
        (none, ()),
    ],
)
def test_they_are_read(handler: Callable[..., Any], codes: tuple[str, ...]) -> None:
    assert declared_codes(handler) == codes
    action(handler).check()


def wrong_annotation(ctx: ActionContext) -> Annotated[ActionResult, Fails["No-Seats"]]:
    return ok()


def wrong_item(ctx: ActionContext) -> ActionResult:
    """Book a seat.

    Fails:
        too_late: the event has begun
        No-Seats: all are taken
    """
    return ok()


def a_sentence(ctx: ActionContext) -> ActionResult:
    """Book a seat.

    Fails:
        where No-Seats are left.
    """
    return ok()


@pytest.mark.parametrize("handler", [wrong_annotation, wrong_item, a_sentence])
def test_what_is_no_code_stops_the_start_with_its_place(handler: Callable[..., Any]) -> None:
    place = re.escape(
        f"test_fails.py:{handler.__code__.co_firstlineno}: {handler.__name__}: Fails:"
    )
    with pytest.raises(ConfigurationError, match=f"{place} code: '.*No-Seats.*' is none"):
        action(handler).check()


@pytest.mark.parametrize("codes", [3, ("a", None), "a" * 65])
def test_nor_is_anything_else_one(codes: Any) -> None:
    with pytest.raises(ConfigurationError, match="is none"):
        Fails[codes]


def test_openapi_and_the_typescript_client_tell_them_beside_callboards_own() -> None:
    actions = {found.name: found for found in (action(annotated), action(none))}
    document = build_document(Registry(actions=actions))
    validate(document)
    text = typescript_client(document)
    assert 'data: Models.Created; code: "no_seats" | "too_late" | Models.CallboardCode };' in text
    assert "none: { params: { [name: string]: unknown }; data: unknown; code: string };" in text
    assert '"failed" | "unauthorized" | "forbidden" | "unknown_action"' in text
