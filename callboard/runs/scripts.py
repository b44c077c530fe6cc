"""The scripts that change a run record.

Each script is a compare-and-set: a message that is delivered twice, late, or by a stranger
changes nothing that the record does not allow. All use the clock of the Redis server.

What they read may have been altered by whoever can write Redis: a number that is none, a field
that is gone or a key of another type costs its own run and stops no script (``record`` and
``number`` see to that).

==============  ======================================  ==========================================
script          from -> to                              who
==============  ======================================  ==========================================
``accept``      nothing -> queued, or waiting           the API, a schedule, a run
``release``     waiting, and due -> queued              any worker's keeper
``admit``       waiting, and there is a slot -> queued  any worker's keeper; ``finish``, ``claim``
                                                        and others do so as a slot becomes free
``keep``        running (and still the holder's) ->     the child, for each step of a handler
                running
``park``        running (and still the holder's) ->     the child, whose handler waits
                waiting
``signal``      waiting for it -> queued; else a field  the API, another run
``claim``       queued, or a lapsed claim -> running    a worker's child, before anything of the
                                                        run is opened: told too, if it is to be
                                                        ended now
``renew``       running -> running                      the worker's keeper, while the run goes on
``finish``      running (and still the holder's) -> end the child; the keeper for a hard stop
``requeue``     running (and still the holder's) ->     a retry, with a delay; a graceful stop
                queued
``lose``        running (and still the holder's) ->     the worker, when its child died
                queued
``cancel``      queued, waiting -> canceled; running:   the API
                a mark
``reschedule``  waiting -> waiting for another time     the API
``signal``      waiting for it -> queued; else      the API, a run
                it is kept for later
``expire``      queued too long, or waiting for a       any worker's keeper, as ``sweep`` tells
                group that is gone -> failed
``retry``       a retryable end -> queued               the owner, who starts it again
``sweep``       (re-sends wake-ups that went missing)   any worker's keeper
==============  ======================================  ==========================================

Keys, below the namespace (`callboard.connections.keys`): ``run:<id>`` (a hash), ``open`` (every run
that has not ended, scored by when to look at it again), the queue's list, ``live`` (every run that
is not in the history yet, scored by when it was enqueued; see `callboard.runs.live`), ``ended``
(what the history is to take; see `callboard.runs.ended`, which also lets the record expire then),
and ``counters`` (see `callboard.runs.counters`).

A run that waits is in ``due``, scored by its time, and not in ``open``: an older worker must not
meet it there, and a deep ``open`` is looked at more seldom. Neither a message nor a process knows
of it. One that waits for a group is found by ``group:<id>``: how many of the group have not ended
(``left``), and what waits for them (``join``). Whatever ends a run of the group counts it off,
once; the last one takes the group with it. What waits for a group is in ``open``, too: `sweep`
looks now and then whether the group is there, so that nothing waits for one that Redis has lost.

A run whose handler waits is in ``due`` as well, ``waiting`` says for what. What its handler has
kept is in ``step:<n>`` (`callboard.runs.kept`), what was sent to it in ``signal:<name>``
(`callboard.runs.signals`).

A run that a limit counts (`callboard.sdk.limit`) has the tag of its key in the field ``limit``. It
is admitted to its queue by whoever accepts or releases it; else it waits (as ``waiting`` tells)
until another leaves, in the order of ``slots.lua``. It keeps its slot until it ends or waits for
anything else, also while it is lost and taken over. In ``due`` is when it has waited for too long.

Any other run that has not ended is always in ``open``, so a lost message costs a few seconds
and never a run: `sweep` sends the wake-up again, for a queued run and for one whose claim lapsed.
What was sent to the queue's front is looked at a second later. A run that waits in the queue is
looked at the more seldom the more there are, so that a lapsed claim never waits behind them.

A record of a later version (`callboard.runs.format`) is woken for, but neither claimed nor expired
here: it waits for a worker that knows it.

Each is a file of this folder, ``<name>.lua``, and gets what it uses of the constants that Python
knows and of the parts that several share (``guard.lua``, ``common.lua``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from callboard.connections.keys import Keys
from callboard.runs.attempts import KEPT
from callboard.runs.format import FORMAT, LIMITED, MEMORY, PLAIN, START
from callboard.runs.kept import MAX_BYTES, MAX_STEPS
from callboard.runs.seal import CALL_LIFETIME

__all__ = ["GROUP_SECONDS", "MAX_LOST", "lua_list", "script", "scripts"]

GROUP_SECONDS = 31 * 86_400  # that a group is kept after the last of its runs was accepted
GROUP_LOOK_MS = 60_000  # between two looks whether the group that a run waits for is there
LOOK_AGAIN_MS = 5_000  # until a limit with runs that wait is looked at, though nothing happened
LOOKED_AT = 20  # of those who have its slots
ADMITTED = 100  # of those who wait, in one script
MAX_LOST = 3  # workers that may die with one run before it ends as `Worker lost`

_FOLDER = Path(__file__).parent


def script(name: str, *parts: str, **constants: str | int) -> str:
    """The text of ``<name>.lua``, behind what it uses of the constants (Lua's literals) and of the
    ``<part>.lua``s: whatever stands there is made anew by each call."""
    shared = [f"local {constant} = {value}\n" for constant, value in constants.items()]
    for part in parts:
        shared += _LOCALS.split(_read(part))[1:]
    text = _read(name)
    for piece in reversed(shared):
        if re.search(rf"\b{_NAME.findall(piece)[0]}\b", text):
            text = piece + text
    return text


_LOCALS = re.compile(r"^(?=local )", re.MULTILINE)
_NAME = re.compile(r"local (?:function )?(\w+)")


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def lua_list(numbers: Iterable[int]) -> str:
    """Lua's literal for a list of numbers."""
    return f"{{{', '.join(map(str, numbers))}}}"


def scripts(keys: Keys) -> dict[str, str]:
    """The text of each script by its name."""
    constants: dict[str, str | int] = {
        "DEFAULT_LOST": MAX_LOST,
        "FORMAT": FORMAT,
        "MEMORY_FORMAT": MEMORY,
        "START_FORMAT": START,
        "PLAIN_FORMAT": PLAIN,
        "MAX_STEPS": MAX_STEPS,
        "MAX_BYTES": MAX_BYTES,
        "LIMITED_FORMAT": LIMITED,
        "LIFETIME": CALL_LIFETIME * 1000,
        "FOR_SLOT": '\'{"kind":"slot"}\'',
        "LOOK_AGAIN": LOOK_AGAIN_MS,
        "LOOKED_AT": LOOKED_AT,
        "ADMITTED": ADMITTED,
        **keys.constants(),
        "GROUP_SECONDS": GROUP_SECONDS,
        "GROUP_LOOK": GROUP_LOOK_MS,
        "KEPT": KEPT,
    }
    return {
        name: script(name, "guard", "slots", "common", **constants)
        for name in (
            *("accept", "admit", "cancel", "claim", "expire", "finish", "keep", "lose"),
            *("note", "park"),
            *("release", "renew", "requeue", "reschedule", "retry", "signal", "sweep", "watch"),
        )
    }
