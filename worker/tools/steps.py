"""What the tools do: the steps of each call of a handler's.

Each call checks names and values, does one operation of `worker.tools.records`, and answers an
`ActionResult`. Only a lost database, or a lost transaction, raises: and the tools remember it,
so that the run ends as retryable whatever the handler makes of the exception.

All of it is steps (`callboard.sans_io`); `worker.tools.tools` has the two kinds that handlers get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from uuid import UUID, uuid5

from callboard.connections.mongodb import AnyDatabase
from callboard.errors import InvalidData, ServiceUnavailable
from callboard.sans_io import Steps
from callboard.sdk.names import collection_name, record_id as checked_id
from callboard.sdk.results import ActionResult, StopHandler, fail, is_result, ok
from callboard.types import Created, Deleted, Found, Page, User

from .cursor import Order
from .deadline import within
from .faults import DATABASE_ERRORS, DatabaseError, outage, refusal
from .filters import filter_of
from .ordinals import Ordinals
from .records import Records, envelope
from .transaction import Kind, Transaction, close_part, open_part
from .values import stored_data, stored_scalar

__all__ = ["ToolSteps"]

MAX_RECORDS = 10_000  # of one query
MAX_DELETED = 500  # by one delete_where
MAX_MESSAGE = 500  # characters: a refused name can be as long as a request

USERS = "users"

_DERIVED = UUID("6f0d7ad6-9d0c-5c3e-9f3b-0a8b9ad4c1de")  # the namespace of derived record ids
_NOT_FOUND = fail("Record not found", "not_found")
_ENDED = fail("This context is that of a run that has ended; use the one of the run that goes on")
_TRANSACTION_ENDED = fail(
    "The transaction that this task began in has ended: await its tasks within the block"
)

P = ParamSpec("P")
S = TypeVar("S", bound="ToolSteps")
R = TypeVar("R")
Answer = ActionResult[R]
Method = Callable[Concatenate[S, P], Steps[Answer[R]]]


def _answering(method: Method[S, P, R]) -> Method[S, P, R]:
    """Make a method answer for what goes wrong in it, as `ActionTools` promises."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Steps[Answer[R]]:
        if (doomed := self._checked()) is not None:
            return doomed
        try:
            with within(self._deadline):
                return (yield from method(self, *args, **kwargs))
        except InvalidData as error:
            return fail(f"{error!s:.{MAX_MESSAGE}}", error.code)
        except DATABASE_ERRORS as error:
            return self._judged(error)
        except ServiceUnavailable as error:
            raise self.remembered(error) from None

    return call


class ToolSteps:
    """What the tools of one attempt of a run do, for plain handlers and for async ones."""

    kind: Kind

    def __init__(
        self,
        *,
        database: Callable[[], AnyDatabase],
        run_id: str,
        user_id: str | None,
        integration: Callable[[str, Mapping[str, Any] | None], Any],
        deadline: float | None = None,
        transaction: Transaction | None = None,
        on_session: Callable[[str], Any] = lambda session_id: None,
        on_end: Callable[[], Any] = lambda: None,
    ) -> None:
        """``deadline``: `time.monotonic` seconds by which calls to the database give up.
        ``transaction``: the one that `run_in_transaction` opened around the handler.
        ``on_session``: told the session id before ``transaction()`` starts one.
        ``on_end``: called by ``end``. These, and ``integration``, are steps.
        """
        self.lost: ServiceUnavailable | None = None
        self._database = database
        self._run_id = run_id
        self._user_id = user_id
        self._post = integration
        self._deadline = deadline
        self._transaction = transaction
        self._on_session = on_session
        self._on_end = on_end
        self.ended = False  # what has kept the tools, a global or a thread, gets nothing more
        self._creates = Ordinals()  # without an id, by collection

    @_answering
    def _create(
        self, coll: str, data: Mapping[str, Any], record_id: str | None = None
    ) -> Steps[Answer[Created]]:
        records, fields = self._records(coll), stored_data(data)
        if record_id is not None:
            record_id = checked_id(record_id)
            yield from records.merge(record_id, fields)
        else:
            record_id = self._derived_id(coll)
            yield from records.insert(record_id, fields)
        return ok({"recordId": record_id})

    @_answering
    def _update(
        self, coll: str, record_id: str, patch: Mapping[str, Any]
    ) -> Steps[Answer[Created]]:
        records, record_id = self._records(coll), checked_id(record_id)
        found = yield from records.patch(record_id, stored_data(patch, "patch"))
        return ok({"recordId": record_id}) if found else _NOT_FOUND

    @_answering
    def _remove(self, coll: str, record_id: str) -> Steps[Answer[Created]]:
        records, record_id = self._records(coll), checked_id(record_id)
        found = yield from records.remove(record_id)
        return ok({"recordId": record_id}) if found else _NOT_FOUND

    @_answering
    def _get(self, coll: str, record_id: str) -> Steps[Answer[Found]]:
        document = yield from self._records(coll).find(checked_id(record_id))
        return _NOT_FOUND if document is None else ok({"record": envelope(document)})

    @_answering
    def _query(
        self,
        coll: str,
        where: Mapping[str, Any] | None = None,
        order_by: str | None = None,
        order_dir: Literal["asc", "desc"] = "asc",
        limit: int | None = None,
        after: str | None = None,
    ) -> Steps[Answer[Page]]:
        records, wanted = self._records(coll), filter_of(where)
        order = Order.of(coll, order_by, order_dir)
        size = MAX_RECORDS if limit is None else _limit(limit, MAX_RECORDS)
        if after is not None:
            wanted = {"$and": [wanted, order.after(after)]}
        found = yield from records.search(wanted, order, size + 1)
        more = len(found) > size
        if more and limit is None:
            return fail(
                f"More than {MAX_RECORDS} records match: pass limit, and after for each next page",
                "too_large",
            )
        page = [envelope(document) for document in found[:size]]
        cursor = order.cursor(found[size - 1]) if more else None
        return ok({"records": page, "count": len(page), "after": cursor})

    @_answering
    def _delete_where(
        self, coll: str, where: Mapping[str, Any], limit: int = 100
    ) -> Steps[Answer[Deleted]]:
        records, wanted, limit = self._records(coll), filter_of(where), _limit(limit, MAX_DELETED)
        if not wanted:
            raise InvalidData("delete_where: where must name at least one field")
        return ok({"deleted": (yield from records.delete(wanted, limit))})

    @_answering
    def _register_user(
        self,
        user_id: str | None = None,
        name: str | None = None,
        email: str | None = None,
        image_url: str | None = None,
    ) -> Steps[Answer[User]]:
        user_id = self._user_id if user_id is None else user_id
        if user_id is None:
            text = "register_user: an anonymous caller has no user id; pass user_id"
            return fail(text, "unauthorized")
        given = {"name": name, "email": email, "imageUrl": image_url}
        fields = {key: _text(value, key) for key, value in given.items() if value is not None}
        document = yield from self._records(USERS).merged(checked_id(user_id), fields)
        return ok({"user": envelope(document)})

    def _integration(
        self, endpoint: str, data: Mapping[str, Any] | None = None
    ) -> Steps[ActionResult[Any]]:
        doomed = self._checked()
        return doomed if doomed is not None else (yield self._post(endpoint, data))

    def _begin(self) -> Steps[Transaction]:
        """Open a transaction: the calls that follow are part of it."""
        self._checked()
        if self.ended:
            _ENDED.unwrap()
        if self._transaction is not None:
            fail(
                "tools.transaction() inside a transaction: the writes are in one already; "
                "leave the inner one out"
            ).unwrap()
        try:
            opened = open_part(self.kind, self._database, self._deadline, self._on_session)
            self._transaction = transaction = yield from opened
        except ServiceUnavailable as error:
            raise self.remembered(error) from None
        return transaction

    def _finish(self, transaction: Transaction, error: BaseException | None) -> Steps[None]:
        """Commit it, or roll it back after what was raised in it."""
        if isinstance(error, ServiceUnavailable):
            self.remembered(error)
        try:
            yield from close_part(self.kind, transaction, self._deadline, commit=error is None)
        except ServiceUnavailable as lost:
            raise self.remembered(lost) from None
        finally:
            self._transaction = None
        if error is None and transaction.doomed is not None:
            transaction.doomed.unwrap()

    @property
    def in_transaction(self) -> bool:
        """Whether one is open."""
        return self._transaction is not None

    def _join(self, handler: Callable[[], Any]) -> Steps[Any]:
        """Run a handler (a step) within the open transaction. Its failure is that of the
        transaction: what it wrote until then must not be committed by a caller that takes no
        notice."""
        try:
            result = yield handler()
        except StopHandler as stop:
            self._doom(stop.result)
            raise
        except Exception:
            self._doom(fail("Action failed", "action_failed"))
            raise
        if is_result(result) and not result.success:
            self._doom(result)
        return result

    @_answering
    def _do(self, body: Callable[[Transaction | None], Steps[Answer[R]]]) -> Steps[Answer[R]]:
        """Go through other steps, within the open transaction, and judge them as the tools' own."""
        return (yield from body(self._transaction))

    def _doom(self, failure: ActionResult) -> None:
        if self._transaction is not None and self._transaction.doomed is None:
            self._transaction.doomed = failure

    def _records(self, coll: str) -> Records:
        session = self._transaction.session if self._transaction else None
        collection = self._database()[collection_name(coll)]
        return Records(collection=collection, session=session, writer=self._user_id)

    def _derived_id(self, coll: str) -> str:
        """The same id at each rerun of the run: from its id, the collection and the ordinal."""
        return str(uuid5(_DERIVED, f"{self._run_id}\n{coll}\n{self._creates.next(coll)}"))

    def _checked(self) -> ActionResult | None:
        """Raise what ended the attempt; answer the failure that dooms each further call."""
        if self.lost is not None:
            raise self.lost
        if self.ended:
            return _ENDED
        if (transaction := self._transaction) is None:
            return None
        return _TRANSACTION_ENDED if transaction.ended else transaction.doomed

    def _judged(self, error: DatabaseError) -> ActionResult:
        if (lost := outage(error)) is not None:
            raise self.remembered(lost) from error
        failure = refusal(error)
        if self._transaction is not None:
            self._transaction.doomed = failure
        return failure

    def remembered(self, error: ServiceUnavailable) -> ServiceUnavailable:
        """The error, with which the run ends its attempt, whatever the handler makes of it."""
        self.lost = error
        if self._transaction is not None:
            self._transaction.broken = error
        return error


def _limit(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidData(f"limit: must be a whole number from 1 to {most}, not {value!r:.80}")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidData(f"{what}: must be text, not {type(value).__name__}")
    return str(stored_scalar(value, what))
