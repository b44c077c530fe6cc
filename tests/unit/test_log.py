# ruff: noqa: T201, PLE1205 - what is printed, and wrongly logged, is what it tests
"""Logs: whatever is logged or printed becomes a line of valid JSON, and fails nobody."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from callboard.log.lines import LineLogger, configure_logging, route_standard_logging
from callboard.log.printed import Printed, capture_output
from callboard.log.values import LINE, TEXT, plain, to_json


class Hostile:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Stream(io.StringIO):
    """A pipe, as standard error may be."""

    encoding = "utf-8"

    def fileno(self) -> int:
        return 2


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(params=[False, True], ids=["production", "development"])
def development(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stream]]:
    """Make this a process of ours, for the rest of the test: ``begin(level=...)``; where it writes.

    Called by the test itself, since pytest puts its own streams in place before each phase.
    """
    root = logging.getLogger()
    kept = (root.handlers[:], root.level, threading.excepthook, sys.unraisablehook)

    def make(*, development: bool = False, level: int = logging.WARNING) -> Stream:
        stream = Stream()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        configure_logging(development=development)
        route_standard_logging(level)
        return stream

    yield make
    root.handlers[:], root.level, threading.excepthook, sys.unraisablehook = kept
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: Stream) -> list[dict[str, Any]]:
    """The lines of the log so far."""
    return [json.loads(line, parse_constant=_refuse) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ([2**64], ["0x10000000000000000"]),
        ([10**5000], ["16610 bits"]),
        (b"a\xff", "a\\xff"),
        ("half \ud800 pair", "half ? pair"),
        (Hostile(), "<Hostile without a text>"),
        (ValueError("why"), "ValueError: why"),
        ({1: {None: {2}}}, {"1": {"None": [2]}}),
        ({Hostile(): 1}, {"<Hostile without a text>": 1}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00+00:00"),
        ([1, (2.5, True, None)], [1, [2.5, True, None]]),
    ],
)
def test_a_value_becomes_json_of_its_own_kind(value, logged):
    assert plain(value) == logged
    assert json.loads(to_json(value), parse_constant=_refuse) == logged


def test_a_line_has_bounds():
    endless: list[Any] = []
    endless.append(endless)
    deep: dict[str, Any] = {}
    for _ in range(2_000):
        deep = {"deep": deep}
    wide = {str(number): "x" * TEXT for number in range(10_000)}
    for value in (endless, deep, wide, "x" * 10**7, list(range(10**6)), b"x" * 10**7, [wide] * 99):
        assert len(to_json(value)) < 2 * LINE


def test_the_end_of_a_long_text_is_kept():
    assert plain("a" * TEXT + "the end").endswith("the end")


@pytest.mark.parametrize(
    "log",
    [
        lambda log: log.info("mean", value=float("nan"), other=Hostile(), more=b"\xff"),
        lambda log: log.info("two %d", "words"),
        lambda log: log.warning("%s", Hostile()),
        lambda log: log.error("%(name)s", {"name": Hostile()}),
        lambda log: log.exception("nothing raised"),
        lambda log: log.info({"no": "text"}),
        lambda log: log.info("twice", **{"event": 1, "method_name": 2}),
        lambda log: log.info(Hostile(), exc_info=Hostile()),
        lambda log: log.info("half \ud800"),
        lambda log: log.info(),
    ],
)
def test_no_call_of_our_logger_fails(begin, development, log):
    stderr = begin(development=development)
    log(structlog.get_logger().bind(run_id="r"))
    assert len(stderr.getvalue().splitlines()) == 1
    assert development or lines(stderr)[0]["run_id"] == "r"


@pytest.mark.parametrize(
    "log",
    [
        lambda log: log.error("bad %d", "word"),
        lambda log: log.error("one %s", "two", "three"),
        lambda log: log.error("%(missing)s", {"name": 1}),
        lambda log: log.error(Hostile()),
        lambda log: log.error("%s", Hostile()),
        lambda log: log.error("half \ud800 %r", b"\xff"),
    ],
)
def test_no_call_of_a_librarys_logger_fails(begin, development, log):
    stderr = begin(development=development)
    log(logging.getLogger("library"))
    assert len(stderr.getvalue().splitlines()) == 1
    assert development or lines(stderr)[0]["level"] == "error"


def test_a_traceback_has_bounds(begin, development):
    stderr = begin(development=development)
    wide, deep = ValueError("x" * 10**7), ValueError("the first")
    for number in range(2_000):
        deep = ExceptionGroup(str(number), [deep])
    for error in (wide, deep):
        structlog.get_logger().error("raised", exc_info=error)
        logging.getLogger("library").error("raised", exc_info=error)
    assert "raised" in stderr.getvalue()
    assert len(stderr.getvalue()) < 4 * LINE


def test_what_does_not_fit_its_text_is_behind_it(begin):
    stderr = begin()
    logging.getLogger("library").error("bad %d", "word")
    structlog.get_logger().info("bad %d", "word")
    assert [line["event"] for line in lines(stderr)] == ['bad %d ["word"]'] * 2


def test_the_call_of_an_action_is_json_whatever_it_holds(begin):
    stderr = begin()
    LineLogger().info("call", caller="half \ud800", seconds=float("nan"), path="x" * 10**6)
    [line] = lines(stderr)
    assert line["caller"] == "half ?"


def test_a_stream_that_is_gone_fails_nobody(begin):
    stderr = begin()
    stderr.close()
    structlog.get_logger().info("to nobody")


def test_warnings_and_what_a_thread_raises_are_lines(begin):
    stderr = begin()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="mine")
    thread.start()
    thread.join()
    warned, raised = lines(stderr)
    assert "mind" in warned["event"]
    assert (raised["event"], raised["thread"]) == ("a thread raised", "mine")
    assert "ZeroDivisionError" in raised["exception"]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_libraries_that_write_urls_and_records_are_quiet_whatever_the_level(begin, level):
    stderr = begin(level=level)
    for name in ("httpx", "httpcore.http11", "pymongo.command", "redis", "urllib3.connectionpool"):
        logging.getLogger(name).info("GET https://upstream.example/?key=secret")
        logging.getLogger(name).debug("cookie")
    assert stderr.getvalue() == ""
    logging.getLogger("mine").log(level, "mine")
    logging.getLogger("pymongo.client").warning("told")
    assert [line["event"] for line in lines(stderr)] == [
        "mine",
        "told",
    ]


def test_what_is_printed_is_a_line_at_once(begin):
    stderr = begin()
    capture_output()
    print("one", 2, end=" ")
    assert lines(stderr) == []
    print("three")
    print("four\nfive\n\n", file=sys.stderr)
    print("begun", end="", flush=True)
    told = [(line["event"], line["stream"]) for line in lines(stderr)]
    assert told == [
        ("one 2 three", "stdout"),
        ("four", "stderr"),
        ("five", "stderr"),
        ("begun", "stdout"),
    ]


def test_a_thread_prints_lines_of_its_own(begin):
    stderr = begin()
    capture_output()
    print("mine", end=" ")
    thread = threading.Thread(target=lambda: print("its"))
    thread.start()
    thread.join()
    print("too")
    assert [line["event"] for line in lines(stderr)] == ["its", "mine too"]


def test_a_printing_handler_meets_a_stream_as_it_knows_it(begin):
    stderr = begin()
    capture_output()
    capture_output()
    assert isinstance(sys.stdout, Printed)
    assert sys.stdout.stream is stderr
    assert (sys.stdout.fileno(), sys.stdout.encoding) == (2, "utf-8")
    assert sys.stdout.writable()
    with contextlib.redirect_stdout(io.StringIO()) as mine:
        print("mine")
    assert mine.getvalue() == "mine\n"


def test_logging_goes_on_below_what_is_captured(begin):
    """A configuration that comes later, as the API's, writes to the stream, not into the log."""
    stderr = begin()
    capture_output()
    configure_logging()
    route_standard_logging()
    structlog.get_logger().info("ours")
    logging.getLogger("library").warning("theirs")
    LineLogger().info("call")
    assert [line["event"] for line in lines(stderr)] == ["ours", "theirs", "call"]
