"""Runs that nobody waits for as they are started: later, or many at once.

What is due in more than an hour is a row of the outbox first: it survives the loss of Redis.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog

from callboard.clock import DatabaseClock
from callboard.errors import BrokerUnavailable, CallboardError, DatabaseUnavailable
from callboard.runs.outbox import Outbox, Row
from callboard.runs.seal import Call
from callboard.runs.start import Start, Terms, milliseconds
from callboard.runs.store import Accepted
from callboard.sdk.action import Action
from callboard.sdk.request import ActionRequest

from ..identity.tokens import Identity
from ..services import Services

__all__ = ["Answer", "place", "place_one", "start_of"]

Answer = Accepted | CallboardError

_log = structlog.get_logger("callboard.api")


def start_of(
    action: Action,
    identity: Identity | None,
    params: Mapping[str, Any],
    seconds: float,
    idempotency: tuple[str, str] | None,
    request: ActionRequest | None = None,
) -> Start:
    """A call that is due so many seconds from now; the token goes along for a day."""
    call = Call(
        caller=identity.subject if identity else None,
        claims=identity.claims if identity else {},
        jwt=identity.token if identity else None,
        params=params,
        request=request,
    ).due_in(seconds)
    return Start(
        run_id=str(uuid.uuid4()),
        action=action,
        call=call,
        terms=Terms(delay=milliseconds(seconds)),
        idempotency=idempotency,
    )


def place_one(services: Services, start: Start) -> Accepted:
    """`place` for one; raises what it is refused with."""
    [answer] = place(services, [start])
    if isinstance(answer, CallboardError):
        raise answer
    return answer


def place(services: Services, starts: Sequence[Start]) -> list[Answer]:
    """Start each of these, in one packet; what came of each, none stops another.

    Without Redis, what is in the outbox is started all the same, once Redis is back; not so under
    a key, which may lead to another run: whoever tries again under it is told which.
    """
    outbox = Outbox(services.store.database, services.runs.sealer)
    parked = [start for start in starts if start.terms.is_parked]
    answers: dict[str, Answer] = {}
    try:
        _park(services, outbox, parked)
    except DatabaseUnavailable as error:
        answers = {start.run_id: error for start in parked}
    answers |= _accept(services, [start for start in starts if start.run_id not in answers])
    unwanted = [start.run_id for start in parked if _is_elsewhere(answers[start.run_id], start)]
    with contextlib.suppress(DatabaseUnavailable):  # then the outbox's publisher finds out, too
        outbox.drop(unwanted)
    return [answers[start.run_id] for start in starts]


def _park(services: Services, outbox: Outbox, starts: Sequence[Start]) -> None:
    if starts:
        now = DatabaseClock(services.store.database).passed()
        outbox.put(
            [
                Row(start=start, due=now + timedelta(milliseconds=start.terms.delay))
                for start in starts
            ]
        )


def _accept(services: Services, starts: Sequence[Start]) -> dict[str, Answer]:
    limits = services.settings.of_accepting
    try:
        accepted: Sequence[Answer] = services.runs.accept_many(starts, **limits)
    except BrokerUnavailable as error:
        accepted = [_without_broker(start, error) for start in starts]
    return {start.run_id: answer for start, answer in zip(starts, accepted, strict=True)}


def _without_broker(start: Start, error: BrokerUnavailable) -> Answer:
    if not start.terms.is_parked or start.idempotency:
        return error
    _log.warning("a run is in the outbox alone: Redis is away", run_id=start.run_id)
    return Accepted(start.run_id, joined=False)


def _is_elsewhere(answer: Answer, start: Start) -> bool:
    """Whether the start is not to become a run of its own."""
    if isinstance(answer, Accepted):
        return answer.run_id != start.run_id
    return not isinstance(answer, BrokerUnavailable | DatabaseUnavailable)
