"""What an action answers: a success with data, or a failure with a text and a code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, NoReturn, TypeAlias

from typing_extensions import TypeIs, TypeVar

from callboard.codes import FAILED, checked_code
from callboard.errors import CallboardError

__all__ = ["ActionResult", "StopHandler", "fail", "is_result", "ok"]

T = TypeVar("T", default=Any)
T_co = TypeVar("T_co", default=Any, covariant=True)


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class Success(Generic[T_co]):
        """An `ActionResult` as type checkers see it, of what went well."""

        success: Literal[True]
        data: T_co
        error: None = None
        code: None = None
        status: int | None = None

        def unwrap(self) -> T_co:
            """`ActionResult.unwrap`."""

        def envelope(self) -> dict[str, Any]:
            """`ActionResult.envelope`."""

    @dataclass(frozen=True)
    class Failure:
        """An `ActionResult` as type checkers see it, of what went wrong."""

        success: Literal[False]
        data: Never = field(
            init=False
        )  # so that `result.data` has its type where nothing was asked, too
        error: str
        code: str = FAILED
        status: int | None = None

        def unwrap(self) -> NoReturn:
            """`ActionResult.unwrap`."""

        def envelope(self) -> dict[str, Any]:
            """`ActionResult.envelope`."""

    # told apart by `success`: a failure is one of whatever data a handler declares
    ActionResult: TypeAlias = Success[T] | Failure
else:

    @dataclass(frozen=True, slots=True)
    class ActionResult(Generic[T]):
        """The outcome of an action or of one tool call. Build it with `ok` or `fail`.

        On success ``data`` holds the payload, and ``error`` and ``code`` are None; on failure
        ``error`` says what was wrong to people, and ``code`` to programs.
        """

        success: bool
        data: T = None  # None on a failure
        error: str | None = None
        code: str | None = None
        #: of the HTTP response that told it to a `Client`; None: no HTTP response did
        status: int | None = field(default=None, compare=False)

        def unwrap(self) -> T:
            """The data; a failure stops the handler and becomes the action's own result."""
            if not self.success:
                raise StopHandler(self)
            return self.data

        def envelope(self) -> dict[str, Any]:
            """``{"success": true, "data": ...}`` or
            ``{"success": false, "error": ..., "code": ...}``.
            """
            if self.success:
                return {"success": True, "data": self.data}
            return {"success": False, "error": self.error, "code": self.code or FAILED}

    Success = Failure = ActionResult


class StopHandler(CallboardError):
    """Carries the result that ``ActionResult.unwrap`` ends the handler with."""

    def __init__(self, result: ActionResult[Any]) -> None:
        super().__init__("handler stopped by unwrap()")
        self.result = result


def is_result(value: object) -> TypeIs[ActionResult[Any]]:
    """Whether a handler may return it."""
    return isinstance(value, ActionResult)


def ok(data: Any = None) -> ActionResult[Any]:
    """A success. ``data`` must be JSON: dict, list, str, int, finite float, bool or None."""
    return Success(success=True, data=data)


def fail(error: str, code: str | None = None) -> ActionResult[Any]:
    """A failure that the caller reads: say what was wrong and what to do next.

    ``code``: what a program tells it by, such as ``"no_seats"``: a letter a-z, then up to 63 of
    a-z, 0-9 and _. Without one it is ``"failed"``.
    """
    if not isinstance(error, str) or not error:
        raise TypeError(f"fail() takes a non-empty text, not {error!r}")
    return Failure(success=False, error=error, code=FAILED if code is None else checked_code(code))
