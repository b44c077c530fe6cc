"""`@action`: names, options, params; each mistake is told with file and line."""

import inspect
from typing import Any, get_overloads

import pytest
from pydantic import BaseModel, SecretStr

from callboard import ActionContext, ActionResult, AsyncActionContext, Limit, Retry, action, ok
from callboard.errors import ConfigurationError, InvalidParams
from callboard.sdk.options import Options


class Order(BaseModel):
    item: str
    count: int = 1
    code: SecretStr = SecretStr("")


@action
def place_order(ctx: ActionContext, params: Order) -> ActionResult:
    return ok({"item": params.item})


def plain(ctx: Any) -> ActionResult:
    return ok()


def raw(ctx: Any, params: Any) -> ActionResult:
    return ok(params)


def test_the_name_is_the_functions_in_lower_camel_case() -> None:
    assert place_order.name == "placeOrder"
    assert place_order.task == "actions.placeOrder"
    assert action("orders-2")(plain).name == "orders-2"


def test_params_are_validated_against_the_annotated_model() -> None:
    assert place_order.validate({"item": "tea"}) == Order(item="tea")
    with pytest.raises(InvalidParams) as caught:
        place_order.validate({"count": "many"})
    assert [issue["path"] for issue in caught.value.issues] == ["item", "count"]
    assert "many" not in str(caught.value)


def test_a_handler_without_a_model_gets_the_raw_params() -> None:
    assert action(raw).validate({"a": 1}) == {"a": 1}
    assert action(plain).params is None


def test_what_is_displayed_holds_no_value() -> None:
    assert place_order.display({"item": "tea", "code": "hunter2", "x": 1}) == (
        "{item: ***, code: ***}"
    )
    assert action(raw).display({"hunter2": 1}) == "{1 fields}"


async def waiting(ctx: Any) -> ActionResult:
    return ok()


def test_an_async_action_has_a_queue_of_its_own_for_its_wake_ups() -> None:
    assert not action(plain).is_async
    assert action(plain).message_queue == "callboard"
    assert action(waiting).is_async
    assert action(waiting).queue == "callboard"
    assert action(queue="slow")(waiting).message_queue == "slow.async"


def _yielding(ctx: Any) -> Any:
    yield ok()


async def _streaming(ctx: Any) -> Any:
    yield ok()


async def _keyword_only_async(ctx: Any, *, params: Any) -> None: ...


def _too_many(ctx: Any, params: Any, more: Any) -> None: ...


def _keyword_only(ctx: Any, *, params: Any) -> None: ...


def _nothing() -> None: ...


@pytest.mark.parametrize(
    "handler",
    [_yielding, _streaming, _keyword_only_async, _too_many, _keyword_only, _nothing],
)
def test_a_handler_that_cannot_work_is_refused_at_start(handler: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"test_action\.py:\d+.*{handler.__name__}"):
        action(handler)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "1st"}, "1st"),
        ({"name": ""}, "letter"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 10**6}, "timeout"),
        ({"queue": "a b"}, "a b"),
        ({"retry": 3}, "retry"),
        ({"limit": 3}, "limit must be a Limit, not 3"),
        ({"owner_only": 1}, "owner_only"),
        ({"owner_only": True, "anonymous": True}, "exclude"),
        ({"internal": "yes"}, "internal must be True or False"),
        ({"internal": True, "anonymous": True}, "exclude"),
        ({"raw": 1}, "raw must be True or False"),
        ({"raw": True, "internal": True}, "exclude"),
        ({"on_worker_lost": "ignore"}, "ignore"),
        ({"time_out": 5}, r"no option 'time_out'\. Did you mean 'timeout'\?"),
        ({"handler": plain}, "no option 'handler'"),
        ({"zzz": 1}, "It takes name, owner_only"),
    ],
)
def test_a_bad_option_is_refused_at_start(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"test_action\.py:\d+.*{named}"):
        action(**options)(plain)


def test_the_signature_that_editors_show_is_the_options() -> None:
    _bare_async, _bare, called = get_overloads(action)
    shown = dict(inspect.signature(called).parameters)
    del shown["name"]
    assert {name: one.default for name, one in shown.items()} == {
        name: getattr(Options(), name) for name in Options.names()
    }


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"test_action\.py:\d+.*takes a function"):
        action()(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"max_attempts": 0}, {"backoff": 0}, {"backoff": 9, "max_backoff": 1}, {"on": ()}]
)
def test_a_retry_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Retry"):
        Retry(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"concurrency": count} for count in (0, -1, True, 1.5, "3", 100_001)),
        *(
            {"rate": rate}
            for rate in (100, "", "100", "0/minute", "1/week", "1000000/day", "1 /day")
        ),
        *({"concurrency": 1, "key": key} for key in ("tenant", 7)),
    ],
)
def test_a_limit_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Limit: .*(needs|must)"):
        Limit(**options)


def test_the_key_of_a_limit_is_a_plain_function() -> None:
    async def key(params: Any) -> str:
        return "a"

    with pytest.raises(ValueError, match="plain function"):
        Limit(concurrency=1, key=key)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [lambda: "a", lambda tenant, user: "a", lambda *, params: "a"])
def test_the_key_of_a_limit_takes_the_params(key: Any) -> None:
    with pytest.raises(ValueError, match="one argument"):
        Limit(concurrency=1, key=key)


def test_the_numbers_of_a_limit() -> None:
    assert Limit(concurrency=3).numbers == "3 0 0"
    assert Limit(rate="100/minute", key="caller").numbers == "0 100 60000"
    assert Limit(concurrency=1, rate="5/day").numbers == "1 5 86400000"


def test_a_group_is_tried_again_if_all_in_it_is_worth_it() -> None:
    """As tasks of one group raise it."""
    retry = Retry(on=(ConnectionError, TimeoutError))
    worth, not_worth = ConnectionResetError(), ValueError()
    assert retry.covers(worth)
    assert not retry.covers(not_worth)
    assert retry.covers(ExceptionGroup("g", [worth, ExceptionGroup("h", [TimeoutError()])]))
    assert not retry.covers(ExceptionGroup("g", [worth, ExceptionGroup("h", [not_worth])]))


def test_the_wait_before_a_retry_grows_to_its_bound() -> None:
    retry = Retry(max_attempts=5, backoff=1.0, max_backoff=3.0)
    for attempt, longest in [(1, 1.0), (2, 2.0), (3, 3.0), (9, 3.0)]:
        assert longest / 2 <= retry.delay(attempt) <= longest


def _plain_with_async(ctx: AsyncActionContext) -> ActionResult:
    return ok()


async def _async_with_plain(ctx: ActionContext) -> ActionResult:
    return ok()


async def _async_unseen(ctx: "somewhere.ActionContext") -> ActionResult:  # type: ignore[name-defined]  # noqa: F821
    return ok()


@pytest.mark.parametrize(
    ("handler", "wanted"),
    [
        (_plain_with_async, "a plain `def` and gets an ActionContext;"),
        (_async_with_plain, "`async def` and gets an AsyncActionContext;"),
        (_async_unseen, "`async def` and gets an AsyncActionContext;"),
    ],
)
def test_the_context_of_the_other_kind_is_refused_at_start(handler: Any, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"test_action\.py:\d+.*{wanted}"):
        action(handler).check()
    action(waiting).check()
    place_order.check()


def test_a_raw_action_takes_no_params() -> None:
    def receive(ctx: ActionContext, params: dict[str, Any]) -> ActionResult:
        return ok()

    with pytest.raises(ConfigurationError, match=r"receive must take \(ctx\) alone"):
        action(raw=True)(receive)
