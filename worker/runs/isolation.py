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
    getsignal,
    pthread_sigmask,
)
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple, ParamSpec, TypeVar

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
        self._state = [_copy(part.read()) for part in _PARTS]

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
        state = [part.read() for part in _PARTS]
        if state == self._state:
            return
        for part, was, now in zip(_PARTS, self._state, state, strict=True):
            if was != now:
                try:
                    part.write(was)
                except (OSError, ValueError, RuntimeError) as error:
                    _log.error("not put back after a run", what=part.name, why=str(error))


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


class _Part(NamedTuple):
    """One thing that belongs to the whole process."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _attribute(owner: Any, name: str) -> _Part:
    return _Part(
        f"{owner.__name__}.{name}",
        lambda: getattr(owner, name, None),
        lambda was: setattr(owner, name, was),
    )


def _directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return None


def _change_directory(was: str | None) -> None:
    if was is not None:
        os.chdir(was)


def _environment() -> dict[bytes, bytes]:
    """The one behind `os.environ`: to compare it is 100 times faster than to compare that."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]


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


def _handlers() -> list[Any]:
    return [getsignal(number) for number in SIGNALS]


def _set_handlers(was: list[Any]) -> None:
    for number, handler in zip(SIGNALS, was, strict=True):
        if handler is not None and getsignal(number) != handler:
            signal.signal(number, handler)


def _blocked() -> set[int]:
    return pthread_sigmask(signal.SIG_BLOCK, ())  # type: ignore[no-any-return]


def _timers() -> list[bool]:
    return [signal.getitimer(which)[0] > 0 for which in TIMERS]


def _stop_timers(was: list[bool]) -> None:
    for which, ran in zip(TIMERS, was, strict=True):
        if not ran:
            signal.setitimer(which, 0)


def _root_logger() -> tuple[int, int, list[Any], list[Any]]:
    root = logging.root
    return root.level, root.manager.disable, root.handlers.copy(), root.filters.copy()


def _set_root_logger(was: tuple[int, int, list[Any], list[Any]]) -> None:
    root = logging.root
    root.setLevel(was[0])
    logging.disable(was[1])
    root.handlers[:], root.filters[:] = was[2], was[3]


_PARTS = (
    _Part("signal handlers", _handlers, _set_handlers),
    _Part("signal mask", _blocked, lambda was: pthread_sigmask(signal.SIG_SETMASK, was)),
    _Part("timers", _timers, _stop_timers),
    _Part("working directory", _directory, _change_directory),
    _Part("environment", _environment, _set_environment),
    _Part(
        "locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda was: locale.setlocale(locale.LC_ALL, was),
    ),
    _Part("warnings filters", lambda: warnings.filters, _set_filters),
    _attribute(warnings, "showwarning"),
    _Part("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Part("root logger", _root_logger, _set_root_logger),
    _Part("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Part("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    _Part("digits of a number", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    _Part("trace function", sys.gettrace, sys.settrace),
    _Part("profile function", sys.getprofile, sys.setprofile),
    _Part("garbage collector", gc.isenabled, lambda was: gc.enable() if was else gc.disable()),
    _Part("its thresholds", gc.get_threshold, lambda was: gc.set_threshold(*was)),
    *(
        _attribute(sys, name)
        for name in ("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook")
    ),
    _attribute(threading, "excepthook"),
)
"""In the order in which they are put back: what can end the process first."""
