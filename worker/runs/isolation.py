"""Isolation: what one run changed in its process is not there for the next run.

Context variables (structlog's, `decimal`'s context) are the run's own: each has a copy of the
process's. What belongs to the process as a whole is compared after each run with what it was
before the first, and put back. docs/actions.md lists what is left as it is: module globals,
threads, `sys.path`, resource limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import faulthandler
import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from _signal import (  # type: ignore[import-not-found]  # what `signal` wraps: with enums, 20 us
    getitimer,
    getsignal,
    pthread_sigmask,
)
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

import structlog

from callboard.log.printed import end_lines
from callboard.processes.orphans import below

from .descendants import end_children, is_child

__all__ = ["Isolation"]

SIGNALS = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGPIPE, signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD, signal.SIGVTALRM,
    signal.SIGPROF,
)  # fmt: skip
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
SYS_ATTRIBUTES = ("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook")

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger("callboard.worker")


class Isolation:
    """Runs one function after the other in this process, each as if it were the first."""

    def __init__(self) -> None:
        """To be made before the first run."""
        self._process = os.getpid()
        self._mask = os.umask(0o077)
        os.umask(self._mask)
        self._forget_loop = _loop_forgetter()
        self._in_child = is_child()
        self._kept = frozenset(below(self._process)) if self._in_child else frozenset()
        self._state = tuple(_copy(value) for value in _read())

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a context of its own; then all is as before, whatever it did."""
        context = copy_context()
        context.run(decimal.setcontext, decimal.getcontext().copy())
        try:
            return context.run(function, *args, **kwargs)
        finally:
            if os.getpid() != self._process:
                _leave()
            context.run(end_lines)
            self._restore()
            if self._in_child:
                self._forget_loop()
                self._kept |= end_children(self._kept)

    def _restore(self) -> None:
        os.umask(self._mask)
        faulthandler.cancel_dump_traceback_later()
        state = _read()
        if state == self._state:
            return
        for (name, put_back), was, now in zip(_PARTS, self._state, state, strict=True):
            if was != now:
                try:
                    put_back(was)
                except (OSError, ValueError, RuntimeError) as error:
                    _log.error("not put back after a run", what=name, why=str(error))


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, list | dict) else value


def _loop_forgetter() -> Callable[[], object]:
    """What a run left on the loop of `asyncio.get_event_loop` is not carried on by the next."""
    if sys.version_info >= (3, 14):
        return lambda: asyncio.set_event_loop(None)
    policy = type(asyncio.get_event_loop_policy())
    if policy is asyncio.DefaultEventLoopPolicy:
        return lambda: asyncio.set_event_loop_policy(None)  # None: a new one on first use
    return lambda: asyncio.set_event_loop_policy(policy())


def _leave() -> None:
    """In a process that a handler forked and that came back from the handler: the run is its
    parent's, so it ends here."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def _read() -> tuple[Any, ...]:
    """What belongs to the whole process, in the order of `_PARTS`.

    One function, because it runs after each run, with nothing of it in the processor's caches: a
    function for each part takes twice as long.
    """
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        directory = None
    root = logging.root
    return (
        [getsignal(number) for number in SIGNALS],
        pthread_sigmask(signal.SIG_BLOCK, ()),
        [getitimer(which)[0] > 0 for which in TIMERS],
        directory,
        os.environ._data,  # type: ignore[attr-defined]  # `os.environ` itself: 100 times as long
        locale.setlocale(locale.LC_ALL),
        warnings.filters,
        getattr(warnings, "showwarning", None),
        socket.getdefaulttimeout(),
        (root.level, root.manager.disable, root.handlers.copy(), root.filters.copy()),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.get_int_max_str_digits(),
        sys.gettrace(),
        sys.getprofile(),
        gc.isenabled(),
        gc.get_threshold(),
        *[getattr(sys, name, None) for name in SYS_ATTRIBUTES],
        getattr(threading, "excepthook", None),
    )


def _change_directory(was: str | None) -> None:
    if was is not None:
        os.chdir(was)


def _set_environment(was: dict[bytes, bytes]) -> None:
    for name in os.environb.keys() - was.keys():
        del os.environb[name]
    for name, value in was.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    time.tzset()


def _set_filters(was: list[Any]) -> None:
    warnings.filters[:] = was  # type: ignore[index]
    with warnings.catch_warnings():  # at its end the warnings that were shown are forgotten
        pass


def _set_handlers(was: list[Any]) -> None:
    for number, handler in zip(SIGNALS, was, strict=True):
        if handler is not None and getsignal(number) != handler:
            signal.signal(number, handler)


def _stop_timers(was: list[bool]) -> None:
    for which, ran in zip(TIMERS, was, strict=True):
        if not ran:
            signal.setitimer(which, 0)


def _set_root_logger(was: tuple[int, int, list[Any], list[Any]]) -> None:
    root = logging.root
    root.setLevel(was[0])
    logging.disable(was[1])
    root.handlers[:], root.filters[:] = was[2], was[3]


_PARTS: tuple[tuple[str, Callable[[Any], object]], ...] = (
    ("signal handlers", _set_handlers),
    ("signal mask", lambda was: pthread_sigmask(signal.SIG_SETMASK, was)),
    ("timers", _stop_timers),
    ("working directory", _change_directory),
    ("environment", _set_environment),
    ("locale", lambda was: locale.setlocale(locale.LC_ALL, was)),
    ("warnings filters", _set_filters),
    ("warnings.showwarning", partial(setattr, warnings, "showwarning")),
    ("socket timeout", socket.setdefaulttimeout),
    ("root logger", _set_root_logger),
    ("recursion limit", sys.setrecursionlimit),
    ("switch interval", sys.setswitchinterval),
    ("digits of a number", sys.set_int_max_str_digits),
    ("trace function", sys.settrace),
    ("profile function", sys.setprofile),
    ("garbage collector", lambda was: gc.enable() if was else gc.disable()),
    ("its thresholds", lambda was: gc.set_threshold(*was)),
    *((f"sys.{name}", partial(setattr, sys, name)) for name in SYS_ATTRIBUTES),
    ("threading.excepthook", partial(setattr, threading, "excepthook")),
)
"""What is read, and how it is put back, in this order: what can end the process first."""
