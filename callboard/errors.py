"""Every error that Callboard raises on purpose, in one tree.

CallboardError
├── ConfigurationError      a setting or the actions package is wrong: the process does not start
├── SealError               a sealed value cannot be opened with the keys at hand
│   └── NewerFormat         it was written by a later version of Callboard
├── Unauthorized            a token is missing or not acceptable
├── RunRefused              the call is refused before a run exists
│   ├── BadRequest          the request cannot be read
│   ├── Forbidden           owner_only, and the caller is not the owner
│   ├── UnknownAction
│   ├── InvalidParams       the params do not fit the action's model
│   ├── KeyReused           an idempotency key was used with another body
│   ├── NotRetryable        the run did not end in a way that is worth another try
│   ├── NotReplayable       what the run was called with cannot be had, or called, any more
│   ├── NotWaiting          the run does not wait for its time (any more)
│   ├── TooManySignals      the run keeps as many signals as a run may
│   ├── RateLimited
│   ├── LimitKeyFailed      no limit could be found for it: the application's own function failed
│   └── QueueFull
├── NotFound                no such run or schedule, or not the caller's
├── NotReady                a thread of this process failed, or its clock is wrong
├── InvalidData             a name, value or filter that no tool accepts; becomes a failure
├── ServiceUnavailable      something outside is away; trying again is right
│   ├── BrokerUnavailable
│   ├── DatabaseUnavailable
│   ├── IssuerUnavailable   no key set to verify tokens with
│   └── TransactionConflict another writer was faster; the attempt starts again
└── StopHandler             ends a handler early, with a result (`callboard.sdk.results`)

`api.errors` maps each to an HTTP status; a test proves that none is missing.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence

EXITS = (SystemExit, GeneratorExit, CancelledError)
"""What plain code of the application's raises to end more than itself: for whoever calls it in the
middle of other work it is an error as any other."""


class CallboardError(Exception):
    """The root: its text is safe to show to a caller.

    ``code`` tells it to programs, as the code of a failure; ``status`` is the HTTP status of the
    response that a `Client` raised it for, None where nothing answered.
    """

    code = "internal_error"
    status: int | None = None


class ConfigurationError(CallboardError):
    """A setting or the actions package is wrong; the text names what and the next step."""


class SealError(CallboardError):
    """A sealed value was made with another key, for another run, or was altered."""

    code = "unreadable"


class NewerFormat(SealError):
    """A run was written by a later version of Callboard, as one is upgraded to or left."""

    code = "unavailable"


class Unauthorized(CallboardError):
    """The token is missing or not acceptable.

    ``reason`` is for the log only. A caller learns no more than ``Unauthorized``.
    """

    code = "unauthorized"

    def __init__(self, reason: str, *, token_given: bool = True) -> None:
        super().__init__("Unauthorized")
        self.reason = reason
        self.token_given = token_given


class RunRefused(CallboardError):
    """The call is refused before a run exists; nothing was enqueued."""

    code = "bad_request"


class BadRequest(RunRefused):
    """The request cannot be read: not JSON, not an object, a bad header value."""

    code = "bad_request"


class Forbidden(RunRefused):
    """The caller is known and may not do this."""

    code = "forbidden"


class UnknownAction(RunRefused):
    """No action has this name."""

    code = "unknown_action"


class InvalidParams(RunRefused):
    """The params do not fit the action's model; ``issues`` holds ``{"path", "message"}`` rows."""

    code = "invalid_params"

    def __init__(self, message: str, issues: Sequence[dict[str, str]]) -> None:
        super().__init__(message)
        self.issues = list(issues)


class KeyReused(RunRefused):
    """An idempotency key came back with another body."""

    code = "key_reused"


class NotRetryable(RunRefused):
    """The run cannot be started again."""

    code = "conflict"


class NotReplayable(RunRefused):
    """What the run was called with cannot be had, or cannot be called, any more."""

    code = "conflict"


class NotWaiting(RunRefused):
    """The run does not wait for its time, so it cannot be given another one."""

    code = "conflict"


class TooManySignals(RunRefused):
    """The run keeps as many signals, or as much of them, as a run may."""

    code = "conflict"


class RateLimited(RunRefused):
    """The caller asked too often; ``retry_after`` in seconds."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LimitKeyFailed(RunRefused):
    """The function that tells the key of an action's limit raised, or answered no text."""

    code = "action_failed"


class QueueFull(RunRefused):
    """The queue is deeper than CALLBOARD_MAX_QUEUE."""

    code = "queue_full"


class NotFound(CallboardError):
    """No such thing, or none that this caller may see."""

    code = "not_found"


class ServiceUnavailable(CallboardError):
    """Something that Callboard stands on is away; the same request may succeed later."""

    code = "unavailable"


class BrokerUnavailable(ServiceUnavailable):
    """Redis does not answer, or refuses writes."""


class DatabaseUnavailable(ServiceUnavailable):
    """MongoDB does not answer within the time that the run has."""


class IssuerUnavailable(ServiceUnavailable):
    """The issuer's key set (JWT_JWKS_URL) could not be fetched: nobody can tell a good token."""

    def __init__(self) -> None:
        super().__init__("Tokens cannot be verified at the moment. Try again shortly.")


class TransactionConflict(ServiceUnavailable):
    """A transaction met another writer of its records and left nothing behind."""


class NotReady(CallboardError):
    """This process cannot do its work just now; the text says what is wrong with it."""

    code = "unavailable"


class InvalidData(CallboardError):
    """A name, a value or a filter that no tool accepts; the text names the field.

    The tools answer it as a failure: a handler sees it raised by steps and waits alone.
    """

    code = "invalid_data"
