"""Handlers that leave something behind, in their process and beside it."""

import asyncio
import contextvars
import decimal
import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import structlog

from callboard import ActionContext, ActionResult, action, ok

TENANT = contextvars.ContextVar("TENANT", default="nobody")
SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGUSR1)
CARRIED_ON: list[str] = []


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _clear_handlers() -> None:
    logging.getLogger().handlers.clear()


async def _carry_on() -> None:
    await asyncio.sleep(0)
    CARRIED_ON.append("alice")


def _leave_a_task() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    CARRIED_ON.append(loop.create_task(_carry_on()).get_name())
    CARRIED_ON.clear()


_CHANGES: dict[str, Callable[[], Any]] = {
    "context variable": lambda: TENANT.set("alice"),
    "structlog": lambda: structlog.contextvars.bind_contextvars(tenant="alice"),
    "decimal": lambda: setattr(decimal.getcontext(), "prec", 3),
    "warnings": lambda: warnings.simplefilter("error"),
    "showwarning": lambda: setattr(warnings, "showwarning", print),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    "directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0),
    "environment": lambda: os.environ.update(TENANT="alice", PATH="/nowhere"),
    "removed variable": lambda: os.environ.pop("PATH"),
    "time zone": lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()),
    "signals": _ignore_signals,
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS),
    "alarm": lambda: signal.alarm(1),
    "profiling timer": lambda: signal.setitimer(signal.ITIMER_PROF, 0.01),
    "socket timeout": lambda: socket.setdefaulttimeout(0.001),
    "recursion": lambda: sys.setrecursionlimit(300),
    "digits": lambda: sys.set_int_max_str_digits(0),
    "collector": gc.disable,
    "output": lambda: setattr(sys, "stdout", open(os.devnull, "w")),  # noqa: SIM115
    "trace": lambda: sys.settrace(lambda *_: None),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "root logger": _clear_handlers,
    "event loop": _leave_a_task,
}
CHANGES = list(_CHANGES)


@action
def leave(ctx: ActionContext) -> ActionResult:
    """Change one thing of the process."""
    _CHANGES[ctx.params["what"]]()
    return ok(os.getpid())


KEPT: list[ActionContext] = []


@action
def keep(ctx: ActionContext) -> ActionResult:
    """Keep what is the caller's, and close what is everybody's."""
    KEPT.append(ctx)
    ctx.db.client.close()
    return ctx.tools.create("kept", {"by": ctx.user_id})


@action
def use_kept(ctx: ActionContext) -> ActionResult:
    """Act as somebody else."""
    kept = KEPT.pop()
    refused = []
    for act in (lambda: kept.db, lambda: kept.progress(0.5), lambda: kept.fetch("platform", "/")):
        try:
            act()
        except RuntimeError as error:
            refused.append(str(error))
    error = kept.tools.create("kept", {"by": kept.user_id}).error
    records = ctx.tools.query("kept").unwrap()["records"]
    return ok({"refused": len(refused), "error": error, "by": [r["createdBy"] for r in records]})


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _carried_on() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a loop that is made on demand
        loop = asyncio.get_event_loop()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    return CARRIED_ON


@action
def look(ctx: ActionContext) -> ActionResult:
    """What another caller's run finds."""
    return ok(
        {
            "pid": os.getpid(),
            "tenant": TENANT.get(),
            "log": dict(structlog.contextvars.get_contextvars()),
            "decimal": decimal.getcontext().prec,
            "warnings": [str(each) for each in warnings.filters],
            "showwarning": str(warnings.showwarning),
            "locale": locale.setlocale(locale.LC_ALL),
            "directory": os.getcwd(),
            "umask": _mask(),
            "environment": {**os.environ},
            "zone": time.tzname,
            "signals": [str(signal.getsignal(number)) for number in SIGNALS],
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "timers": [signal.getitimer(which)[0] for which in (0, 1, 2)],
            "socket": socket.getdefaulttimeout(),
            "recursion": sys.getrecursionlimit(),
            "digits": sys.get_int_max_str_digits(),
            "collector": gc.isenabled(),
            "output": str(sys.stdout),
            "trace": str(sys.gettrace()),
            "logging": [logging.root.manager.disable, str(logging.getLogger().handlers)],
            "event loop": _carried_on(),
        }
    )


def _sleep(file: str) -> None:
    with open(file, "a") as lines:
        lines.write(f"{os.getpid()}\n")
    time.sleep(600)


def _fork(file: str) -> None:
    if os.fork() == 0:
        _sleep(file)
        os._exit(0)


def _daemonize(file: str) -> None:
    """The classic way: out of the session, and an orphan."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _sleep(file)
        os._exit(0)


def _in_thread(file: str) -> None:
    thread = threading.Thread(target=_run, args=(file,))
    thread.start()
    thread.join()


def _run(file: str, **options: Any) -> None:
    script = 'echo $$ >> "$0"; exec sleep 600'
    subprocess.Popen(["/bin/sh", "-c", script, file], **options)


def _pipe(file: str) -> None:
    script = (
        'sh -c \'echo $$ >> "$0"; exec sleep 600\' "$0" | sh -c \'echo $$ >> "$0"; exec cat\' "$0"'
    )
    subprocess.Popen(["/bin/sh", "-c", script, file])


_STARTS: dict[str, Callable[[str], None]] = {
    "program": _run,
    "thread": _in_thread,
    "session": lambda file: _run(file, start_new_session=True),
    "pipe": _pipe,
    "fork": _fork,
    "daemon": _daemonize,
    "process": lambda file: multiprocessing.Process(target=_sleep, args=(file,)).start(),
    "spawned": lambda file: (
        multiprocessing.get_context("spawn").Process(target=_sleep, args=(file,)).start()
    ),
}
STARTS = list(_STARTS)


def _start(how: str, file: str) -> None:
    """Start a program, and return when it, or both of a pipe, have written who they are."""
    _STARTS[how](file)
    lines = 2 if how == "pipe" else 1
    while not os.path.exists(file) or Path(file).read_text().count("\n") < lines:
        time.sleep(0.01)


@action(timeout=5)
def overrun_with_process(ctx: ActionContext) -> ActionResult:
    """Start a process and wait until the run is stopped."""
    _start(ctx.params["how"], ctx.params["file"])
    time.sleep(60)
    return ok()


@action(timeout=120, on_worker_lost="fail")
def start_process(ctx: ActionContext) -> ActionResult:
    """Start a process that would live for ten minutes, and end in one of several ways."""
    _start(ctx.params["how"], ctx.params["file"])
    end = ctx.params.get("end", "return")
    if end == "raise":
        raise RuntimeError("canary-exception")
    if end == "die":
        os._exit(7)
    if end == "wait":
        time.sleep(100)
    return ok(os.getpid())


@action
def fork_and_come_back(ctx: ActionContext) -> ActionResult:
    """Two processes return from this handler; only one has the run."""
    parent = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return ok([parent, os.getpid()])


def _double(number: int) -> int:
    return number * 2


def _pool(kind: str) -> Any:
    with multiprocessing.get_context(kind).Pool(2) as pool:
        return pool.map(_double, [1, 2])


def _executor(kind: str) -> Any:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(kind)) as pool:
        return list(pool.map(_double, [1, 2]))


def _manager(kind: str) -> Any:
    with multiprocessing.get_context(kind).Manager() as manager:
        return list(manager.list([2, 4]))


def _terminated(kind: str) -> Any:
    process = multiprocessing.get_context(kind).Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


def _shared_memory(kind: str) -> Any:
    memory = SharedMemory(create=True, size=16)
    memory.close()
    memory.unlink()
    return memory.size > 0


_PARALLEL = {
    "pool": _pool,
    "executor": _executor,
    "manager": _manager,
    "terminated": _terminated,
    "memory": _shared_memory,
}


@action
def use_processes(ctx: ActionContext) -> ActionResult:
    return ok(_PARALLEL[ctx.params["what"]](ctx.params.get("kind", "fork")))
