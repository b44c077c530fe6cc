"""The insides of other libraries that Callboard touches are those of docs/overrides.md, and are
still what it takes them for. Each test names the library that has changed where it fails."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gunicorn.http.message
import gunicorn.http.wsgi
import kombu.transport.redis
import pytest
import redis
import structlog
from celery.app.amqp import AMQP
from celery.apps.worker import Worker
from celery.concurrency.prefork import TaskPool
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from flask import Flask
from kombu import Connection
from kombu.transport import virtual
from werkzeug.exceptions import ClientDisconnected
from werkzeug.routing import RequestRedirect
from werkzeug.test import EnvironBuilder

from api.app import Api
from api.call.calls import read_body
from callboard.tracing import export

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "callboard", "worker")
NOT_IMPORTED = ("__main__", "project", "secantusd", "tracing")
NAME = re.compile(r"_[a-z]\w*")


def files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def modules() -> Iterator[ModuleType]:
    for file in files():
        parts = file.relative_to(ROOT).with_suffix("").parts
        if not set(parts) & set(NOT_IMPORTED):
            yield importlib.import_module(".".join(parts).removesuffix(".__init__"))


def own(tree: ast.Module) -> Iterator[str]:
    """The private names that a module defines: functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case ast.alias():
                yield node.asname or node.name


def used() -> set[str]:
    """The private attributes that are read, of a module or that Callboard does not define."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files()]
    ours = {name for tree in trees for name in own(tree)}
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and NAME.fullmatch(node.attr)
        and (node.attr not in ours or root(node) in imported(tree))
    }


def imported(tree: ast.Module) -> set[str]:
    """The names of modules that were imported whole."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return {(name.asname or name.name).split(".")[0] for node in imports for name in node.names}


def root(node: ast.expr) -> str:
    """``a`` of ``a.b.c``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def overridden() -> set[str]:
    """The private methods and attributes of libraries' classes that ours replace."""
    return {
        name
        for module in modules()
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__.split(".")[0] in PACKAGES
        for base in kind.__mro__[1:]
        if base.__module__.split(".")[0] not in {*PACKAGES, *sys.stdlib_module_names}
        for name in vars(base).keys() & vars(kind).keys()
        if NAME.fullmatch(name) and callable(vars(kind)[name])
    }


PAGE = (ROOT / "docs" / "overrides.md").read_text(encoding="utf-8")


def test_each_private_name_of_a_library_is_on_the_page() -> None:
    kept = PAGE.partition("## Given up")[0]
    listed = set(re.findall(r"`(?:[\w.]+\.)?(_[a-z]\w*)`", kept))
    assert used() | overridden() == listed


def test_each_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:api|callboard|worker|tests)/[\w/]+\.py)`", PAGE))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "celery Request.on_failure": (
        Request.on_failure, ("self", "exc_info"), {"send_failed_event": True, "return_ok": False},
    ),
    "celery Request.cancel": (Request.cancel, ("self", "pool"), {"signal": 9, "emit_retry": False}),
    "celery Consumer.ensure_connected": (Consumer.ensure_connected, ("self", "connection"), {}),
    "celery TaskPool.on_start": (TaskPool.on_start, ("self",), {}),
    "celery TaskPool.did_start_ok": (TaskPool.did_start_ok, ("self",), {}),
    "celery Worker.on_before_init": (Worker.on_before_init, ("self",), {"quiet": True}),
    "celery Worker.install_platform_tweaks": (
        Worker.install_platform_tweaks, ("self", "worker"), {},
    ),
    "celery Worker.on_consumer_ready": (Worker.on_consumer_ready, ("self", "consumer"), {}),
    "gunicorn create": (
        gunicorn.http.wsgi.create,
        ("request", "socket", "client", "server", "cfg", "response class"),
        {},
    ),
    "gunicorn Response.process_headers": (
        gunicorn.http.wsgi.Response.process_headers, ("self", "headers"), {},
    ),
    "gunicorn Response.default_headers": (
        gunicorn.http.wsgi.Response.default_headers, ("self",), {},
    ),
    "gunicorn Request": (
        gunicorn.http.message.Request, ("cfg", "unreader", "peer", "number"), {},
    ),
    "kombu Channel.conn_or_acquire": (
        kombu.transport.redis.Channel.conn_or_acquire, ("self", "client"), {},
    ),
    "kombu Channel.get_table": (kombu.transport.redis.Channel.get_table, ("self", "exchange"), {}),
    "kombu Channel._queue_bind": (
        kombu.transport.redis.Channel._queue_bind, ("self", "exchange", "key", "", "queue"), {},
    ),
    "kombu Channel._handle_message": (
        kombu.transport.redis.Channel._handle_message, ("self", "client", "response"), {},
    ),
    "kombu QoS.restore_unacked": (virtual.QoS.restore_unacked, ("self",), {}),
    "redis ConnectionPool.make_connection": (
        redis.ConnectionPool.make_connection, ("self",), {},
    ),
    "redis Connection.send_packed_command": (
        redis.Connection.send_packed_command, ("self", [b"packed"]), {},
    ),
    "redis Connection.read_response": (
        redis.Connection.read_response,
        ("self",),
        {"disconnect_on_error": False, "push_request": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_it_is_there_and_called_as_we_call_it(name: str) -> None:
    function, args, kwargs = CALLS[name]
    inspect.signature(function).bind(*args, **kwargs)


def test_kombu_hands_on_what_was_published_as_we_read_it() -> None:
    channel: Any = object.__new__(kombu.transport.redis.Channel)
    told = channel._handle_message(None, [b"message", b"the channel", b"the data"])
    assert (told["channel"], told["data"]) == (b"the channel", b"the data")
    assert issubclass(kombu.transport.redis.Channel, virtual.Channel)
    assert hasattr(kombu.transport.redis.Channel, "client")
    assert "global_keyprefix" in kombu.transport.redis.Channel.from_transport_options


def test_kombu_and_celery_name_their_classes_as_we_replace_them() -> None:
    assert kombu.transport.redis.Transport.Channel is kombu.transport.redis.Channel
    assert issubclass(virtual.Channel.Message, virtual.Message)
    assert isinstance(Connection.resolve_aliases, dict)
    assert AMQP.Connection is Connection


def test_celery_s_request_has_its_dispatcher_of_events() -> None:
    assert "_eventer" in Request.__slots__
    assert isinstance(inspect.getattr_static(Request, "eventer"), property)


def test_the_environment_is_kept_where_isolation_compares_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    monkeypatch.setenv("CALLBOARD_TEST_OF_CONTRACT", "1")
    assert kept[b"CALLBOARD_TEST_OF_CONTRACT"] == b"1"


def test_structlog_calls_what_we_guard() -> None:
    base = structlog.make_filtering_bound_logger("INFO")
    inspect.signature(base._proxy_to_logger).bind("self", "info", "event", field=1)


@pytest.mark.parametrize(
    "name",
    ["opentelemetry.sdk._shared_internal", "opentelemetry.exporter.otlp.proto.http.trace_exporter"],
)
def test_opentelemetry_logs_under_the_names_that_are_kept_quiet(name: str) -> None:
    assert importlib.import_module(name)._logger.name.startswith(export._CHATTY)


@pytest.fixture
def app() -> Flask:
    app = Api("contract", static_folder=None)
    app.url_map.merge_slashes = False
    app.add_url_rule("/api/runs/<run_id>", "run", lambda run_id: run_id)
    app.add_url_rule("/folder/", "folder", lambda: "")
    return app


@pytest.mark.parametrize("path", ["/api/runs/x%20y", "/api/runs/", "/folder", "//api/runs/x", "/"])
@pytest.mark.parametrize("host", ["localhost", "api.example.com:8443", "API.Example.com:443"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_flask_finds_the_same_view_as_our_adapter(
    app: Flask, path: str, host: str, scheme: str
) -> None:
    def found(create: Callable[..., Any]) -> Any:
        builder = EnvironBuilder(path, f"{scheme}://{host}/under", query_string="a=b", method="GET")
        adapter = create(app, app.request_class(builder.get_environ()))
        facts = (adapter.script_name, adapter.url_scheme, adapter.default_method)
        try:
            return *facts, adapter.match(), adapter.build("run", {"run_id": "a/b"})
        except RequestRedirect as error:
            return *facts, error.new_url
        except Exception as error:  # noqa: BLE001 - such as NotFound
            return *facts, type(error)

    assert found(type(app).create_url_adapter) == found(Flask.create_url_adapter)


@pytest.mark.parametrize("sent", [b"", b'{"a":', b"{"])
def test_a_body_that_was_cut_off_is_none(app: Flask, sent: bytes) -> None:
    """werkzeug's own reading takes it for a whole one, and a call with ``{}`` would run."""
    builder = EnvironBuilder("/", method="POST", input_stream=io.BytesIO(sent))
    environ = {**builder.get_environ(), "CONTENT_LENGTH": "7", "wsgi.input_terminated": True}
    assert app.request_class(environ).get_data() == sent
    environ["wsgi.input"] = io.BytesIO(sent)
    with pytest.raises(ClientDisconnected):
        read_body(app.request_class(environ))
