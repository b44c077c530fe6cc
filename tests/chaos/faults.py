"""The faults: what is done to the stack, in random order.

They come from a bag that holds each kind by its weight; an empty bag is filled again. So every
kind has its turn, also in a short run. A victim must be ready, and of the workers both: a fault
never takes the last one, so that recovery is not the time that a machine takes to start one.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from chaos.stack import API, BROKER, DATABASE, WORKERS, Stack, children

STOPPED = (0.5, 12.0)  # seconds: less than a lease, and more

__all__ = ["KINDS", "Fault", "bag", "inject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. ``at``: `time.monotonic` seconds, just before it was done."""

    kind: str
    at: float
    killed: tuple[int, ...]  # the worker's children that died of it


Deed = Callable[[Stack, str, random.Random], list[int] | None]
"""Takes the stack, the victim's name and the dice; the worker's children that it kills. None where
there is nothing to do it to yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault."""

    weight: int
    victims: tuple[str, ...]  # one of them is chosen
    do: Deed


def _kill_child(stack: Stack, victim: str, chance: random.Random) -> list[int]:
    plain = sorted({*children(stack.pid(victim))} - {*stack.loops(victim)})
    killed = chance.sample(plain, 1)
    _signal(killed[0], signal.SIGKILL)
    return killed


def _kill_loop(stack: Stack, victim: str, chance: random.Random) -> list[int] | None:
    killed = stack.loops(victim)
    for pid in killed:
        _signal(pid, signal.SIGKILL)
    return killed or None


def _stop_loop(stack: Stack, victim: str, chance: random.Random) -> list[int] | None:
    """It goes on later, if it has not been given up by then."""
    stopped = stack.loops(victim)
    for pid in stopped:
        _signal(pid, signal.SIGSTOP)
        later = threading.Timer(chance.uniform(*STOPPED), _signal, (pid, signal.SIGCONT))
        later.daemon = True
        later.start()
    return [] if stopped else None


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_worker(stack: Stack, victim: str, chance: random.Random) -> list[int]:
    killed = children(stack.pid(victim))
    stack.kill(victim)
    return killed


def _cut_connections(stack: Stack, victim: str, chance: random.Random) -> list[int]:
    with stack.redis() as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
    return []


def _process(deed: Callable[[Stack, str], None]) -> Deed:
    def do(stack: Stack, victim: str, chance: random.Random) -> list[int]:
        deed(stack, victim)
        return []

    return do


KINDS = {
    "kill -9 of a worker's child": Kind(weight=4, victims=WORKERS, do=_kill_child),
    "kill -9 of a loop process": Kind(weight=4, victims=WORKERS, do=_kill_loop),
    "SIGSTOP of a loop process": Kind(weight=2, victims=WORKERS, do=_stop_loop),
    "kill -9 of a worker": Kind(weight=4, victims=WORKERS, do=_kill_worker),
    "SIGTERM of a worker": Kind(weight=2, victims=WORKERS, do=_process(Stack.roll)),
    "kill -9 of the API": Kind(weight=2, victims=(API,), do=_process(Stack.kill_all)),
    "SIGTERM of the API": Kind(weight=1, victims=(API,), do=_process(Stack.restart)),
    "kill -9 of the broker": Kind(weight=2, victims=(BROKER,), do=_process(Stack.kill_all)),
    "SIGTERM of the broker": Kind(weight=1, victims=(BROKER,), do=_process(Stack.restart)),
    "kill -9 of the database": Kind(weight=2, victims=(DATABASE,), do=_process(Stack.kill_all)),
    "SIGTERM of the database": Kind(weight=1, victims=(DATABASE,), do=_process(Stack.restart)),
    "CLIENT KILL of all connections": Kind(weight=2, victims=(BROKER,), do=_cut_connections),
}


def bag(chance: random.Random) -> Iterator[str]:
    """Kinds of faults without end."""
    names = [name for name, kind in KINDS.items() for _ in range(kind.weight)]
    first = list(KINDS)  # a short run sees each kind once
    chance.shuffle(first)
    yield from first
    while True:
        chance.shuffle(names)
        yield from names


def inject(stack: Stack, name: str, chance: random.Random) -> Fault | None:
    """Do it; None while its victims are not ready, or have nothing to do it to."""
    kind = KINDS[name]
    if not all(stack.ready(victim) for victim in kind.victims):
        return None
    at = time.monotonic()
    killed = kind.do(stack, chance.choice(kind.victims), chance)
    return None if killed is None else Fault(kind=name, at=at, killed=tuple(killed))
