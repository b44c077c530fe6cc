"""What an action answers: a success with data or a failure with a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from typing_extensions import TypeVar

from callboard.errors import CallboardError

__all__ = ["ActionResult", "StopHandler", "fail", "ok"]

T = TypeVar("T", default=Any)


@dataclass(frozen=True, slots=True)
class ActionResult(Generic[T]):
    """The outcome of an action or of one tool call. Build it with `ok` or `fail`.

    On success ``data`` holds the payload and ``error`` is None; on failure the reverse.
    """

    success: bool
    data: T = None  # type: ignore[assignment]  # None on a failure: look at success first
    error: str | None = None

    def unwrap(self) -> T:
        """The data; a failure stops the handler and becomes the action's own result."""
        if not self.success:
            raise StopHandler(self)
        return self.data

    def envelope(self) -> dict[str, Any]:
        """``{"success": true, "data": ...}`` or ``{"success": false, "error": ...}``."""
        if self.success:
            return {"success": True, "data": self.data}
        return {"success": False, "error": self.error}


class StopHandler(CallboardError):
    """Carries the result that ``ActionResult.unwrap`` ends the handler with."""

    def __init__(self, result: ActionResult[Any]) -> None:
        super().__init__("handler stopped by unwrap()")
        self.result = result


def ok(data: Any = None) -> ActionResult[Any]:
    """A success. ``data`` must be JSON: dict, list, str, int, finite float, bool or None."""
    return ActionResult(success=True, data=data)


def fail(error: str) -> ActionResult[Any]:
    """A failure that the caller reads: say what was wrong and what to do next."""
    if not isinstance(error, str) or not error:
        raise TypeError(f"fail() takes a non-empty text, not {error!r}")
    return ActionResult(success=False, error=error)
