"""The attempts of a run, as its record and the history have them.

The last one is told by the record's own fields: ``attempt`` (its number), ``holder``, ``ended`` and
``attempted``, when it started, where that is not ``started``, the start of the first. Of each one
before, ``attempt:<number>`` says ``<start> <end> <requeued, lost or ended> <holder>``, times in
epoch milliseconds. The last `KEPT` are kept, with their reports (`callboard.runs.report`). The
history keeps the same fields as they are.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from callboard.errors import SealError
from callboard.runs.report import Report, open_report
from callboard.runs.seal import Sealer

__all__ = ["KEPT", "PastAttempt", "attempts_of", "kept_fields", "worker_of"]

KEPT = 20  # attempts of a run
ROOM = 12 * 1024 * 1024  # bytes of all these fields: a document of MongoDB's has 16 MiB
_FIELDS = frozenset({b"attempted", b"holder", b"exception"})
_NUMBERED = re.compile(rb"(?:attempt|report):[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """One start of a handler. Times are epoch milliseconds."""

    number: int
    status: str  # running, succeeded, failed, canceled; lost; requeued: handed back, not counted
    started: int | None
    ended: int | None
    worker: str | None  # host:process
    report: Report | None


def kept_fields(values: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of a record that tell of its attempts, as far as the history has room for them: what
    somebody else has put there may be of any size."""
    found, room = {}, ROOM
    for name, value in values.items():
        if (name in _FIELDS or _NUMBERED.fullmatch(name)) and len(value) <= room:
            found[name] = value
            room -= len(value)
    return found


def attempts_of(
    sealer: Sealer,
    run_id: str,
    action: str,
    *,
    number: int,
    status: str,
    started: int | None,
    ended: int | None,
    kept: Mapping[bytes, bytes],
) -> list[PastAttempt]:
    """All that is known of them, the first one's first.

    ``number`` to ``ended``: the run's; ``kept``: the fields `kept_fields`, perhaps among others.
    """

    def report(of: int) -> Report | None:
        """None for one that there is not, or that cannot be read (any more)."""
        with contextlib.suppress(SealError, ValueError, TypeError):
            sealed = kept.get(b"report:%d" % of)
            return open_report(sealer, run_id, action, of, sealed) if sealed else None
        return None

    found = {one.number: one for one in _before(kept, report)}
    if number and number not in found and status not in ("queued", "waiting"):
        found[number] = PastAttempt(
            number=number,
            status=status,
            started=_time(kept.get(b"attempted")) or started,
            ended=ended,
            worker=worker_of(kept.get(b"holder", b"").decode(errors="replace")),
            report=report(number),
        )
    return [found[of] for of in sorted(found)]


def worker_of(holder: str) -> str | None:
    """``host:process`` of ``<host>.<start of the worker>:<process>:<number>``."""
    worker, _, rest = holder.partition(":")
    host = worker.rpartition(".")[0]
    return f"{host}:{rest.partition(':')[0]}" if host else None


def _before(
    kept: Mapping[bytes, bytes], report: Callable[[int], Report | None]
) -> Iterator[PastAttempt]:
    for name, value in kept.items():
        if not name.startswith(b"attempt:"):
            continue
        with contextlib.suppress(ValueError):
            number = int(name.removeprefix(b"attempt:"))
            started, ended, how, holder = value.decode(errors="replace").split(" ", 3)
            sent = report(number)
            yield PastAttempt(
                number=number,
                status="failed" if how != "lost" and sent and sent.error else how,
                started=_time(started.encode()),
                ended=_time(ended.encode()),
                worker=worker_of(holder),
                report=sent,
            )


def _time(text: bytes | None) -> int | None:
    return int(text) if text and text.isdigit() and len(text) < 15 else None
