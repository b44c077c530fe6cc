"""The processes that a run starts: they end with it (Linux).

What a handler starts is below its child of the worker, also when it has moved to a session of its
own: a child adopts what is orphaned below it. After each run it ends whatever is there. When the
child itself was killed, the worker's main process adopts what it left (`worker.pool.strays`).

Python's own helpers of `multiprocessing` (the resource tracker, the fork server) are left alone:
they end by themselves once nobody uses them, and then remove what was not cleaned up.

Elsewhere than on Linux only what `multiprocessing` started is ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path

import structlog

from callboard.processes.orphans import adopt_orphans, below, end

from ..pool.processes import die_with_parent

__all__ = ["end_children", "is_child", "is_helper", "prepare_child"]

SECONDS = 1.0  # that killed processes have to be gone

_HELPERS = (b"multiprocessing.resource_tracker import", b"multiprocessing.forkserver import")
_RESET = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_log = structlog.get_logger("callboard.worker")


class _Child:
    """What a child of the worker knows about itself."""

    process = 0  # its process id; 0 in every other process


_fork = threading.local()  # what the thread that forks was like before


def prepare_child() -> None:
    """In a child of the worker, before its first run."""
    adopt_orphans()
    _Child.process = os.getpid()
    _allow_children()
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def _allow_children() -> None:
    """Let handlers use `multiprocessing`: billiard, whose process this is, forbids it.

    billiard shows this process to `multiprocessing` as its current one: as a daemon, which may
    have no children, and with a key of a type of its own, which no child may be given.
    """
    process = multiprocessing.current_process()
    process.daemon = False
    key: property = multiprocessing.Process.authkey  # type: ignore[assignment]
    assert key.fset is not None  # noqa: S101 - documented as an attribute that may be set
    key.fset(process, bytes(process.authkey))


def _before_fork() -> None:
    """A signal that comes while the new process still has our handlers would be lost in it."""
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)
    _fork.parent = os.getpid()
    _fork.in_main_thread = threading.current_thread() is threading.main_thread()


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _after_fork_in_child() -> None:
    """In a process that a handler has forked: no signal means to it what it means to a child.

    It does not outlive its parent, where the kernel can see to that: the parent, in this respect,
    is the thread that forked, which may end long before its process.
    """
    if _Child.process:
        _Child.process = 0
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        if _fork.in_main_thread:
            die_with_parent(_fork.parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def is_child() -> bool:
    """Whether this process is a child of the worker, which `prepare_child` has made ready."""
    return _Child.process == os.getpid()


def end_children(kept: Collection[int] = ()) -> frozenset[int]:
    """In a child of the worker after a run: end the processes below it, but for ``kept``.

    Answers those that could not be ended. Costs 1 us where there are no processes.
    """
    if not _has_children():
        return frozenset()
    for process in multiprocessing.active_children():
        process.kill()
    deadline = time.monotonic() + SECONDS
    while found := [pid for pid in below(os.getpid()) if pid not in kept and not is_helper(pid)]:
        end(found, deadline)
        if time.monotonic() > deadline:
            _log.error("processes of a run did not end", pids=found[:20])
            return frozenset(found)
    return frozenset()


def is_helper(process: int) -> bool:
    """Whether it is one of Python's own, which ends by itself."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return any(helper in command for helper in _HELPERS)


def _has_children() -> bool:
    """Whether there may be any."""
    if sys.platform != "linux":
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
