"""The report of an attempt: why it failed, and what its handler logged. For the owner alone."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import callboard
from callboard.log.values import cut
from callboard.runs.report import LogLine, Report, Sealed, seal_report

if TYPE_CHECKING:
    from callboard.runs.outcome import Outcome

    from ..services import Services
    from .attempt import Attempt

__all__ = ["report_of", "reported", "traceback_of"]

LONGEST = 500  # characters of an error
TRACEBACK = 16_384  # characters of a traceback: its beginning and its end
LOOKED_AT = 1024 * 1024  # characters of a text
FRAMES = 200  # of one exception, the innermost
_OURS = tuple(
    f"{folder}{os.sep}" for folder in (Path(callboard.__file__).parent, Path(__file__).parents[1])
)


def reported(
    services: Services, attempt: Attempt, outcome: Outcome, why: BaseException | str | None = None
) -> Outcome:
    """The end of the run, with the report of its last attempt."""
    return outcome.with_report(report_of(services, attempt, why or outcome.reason))


def report_of(
    services: Services, attempt: Attempt, why: BaseException | str | None = None
) -> Sealed | None:
    """What there is to tell, sealed; None for an attempt that did not fail and logged nothing.

    ``why``: what the handler raised, was stopped with, or returned in vain.
    """
    lines = attempt.log.end()
    if why is None and not lines:
        return None
    raised = isinstance(why, BaseException)
    is_error = why is not None and not (raised and _stops(why))
    report = Report(
        attempt=attempt.claim.attempt,
        error=_fitting(attempt, _error(why), LONGEST) if is_error else None,
        exception=_type(why)[:LONGEST] if is_error and raised else None,
        traceback=_fitting(attempt, traceback_of(why), TRACEBACK) if raised else None,
        lines=[LogLine(*line) for line in lines],
        dropped=attempt.log.dropped,
    )
    return seal_report(services.sealer, attempt.run_id, attempt.action.name, report)


def traceback_of(error: Any) -> str:
    """Its traceback from the handler on: what calls the handler is the same each time."""
    frames = _of_the_handler(error.__traceback__)
    if _stops(error):
        return "".join(["Stopped here:\n", *traceback.format_tb(frames, limit=-FRAMES)]).rstrip()
    try:
        made = traceback.format_exception(type(error), error, frames, limit=-FRAMES)
    except BaseException:  # noqa: BLE001 - of a hostile exception
        made = [*traceback.format_tb(frames, limit=-FRAMES), _type(error)]
    return "".join(part[:LOOKED_AT] for part in made).rstrip()


def _of_the_handler(frames: TracebackType | None) -> TracebackType | None:
    found = frames
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OURS):
        found = found.tb_next
    return found or frames


def _stops(why: BaseException | str | None) -> bool:
    """Whether it stops a handler from outside: the run's end says why."""
    return type(why).__module__ == f"{__package__}.lifecycle"


def _error(why: object) -> str:
    if isinstance(why, str):
        return why
    try:
        text = str(why)[:LOOKED_AT]
    except BaseException:  # noqa: BLE001 - a hostile __str__
        text = "without a text"
    return f"{_type(why)}: {text}" if text else _type(why)


def _type(error: object) -> str:
    """Its type as a traceback names it."""
    kind = type(error)
    name = kind.__qualname__
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"


def _fitting(attempt: Attempt, text: str, length: int) -> str:
    """The text without secrets, cut in its middle; it is Unicode."""
    text = cut(attempt.log.redact(text), length)
    return text.encode(errors="replace").decode()
