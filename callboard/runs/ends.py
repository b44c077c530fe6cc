"""The ends of runs, wherever they are kept: the record, or the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callboard.connections.mongodb import AnyDatabase, guarded
from callboard.errors import SealError
from callboard.runs.history import READ_SECONDS, RUNS
from callboard.runs.outcome import Outcome
from callboard.runs.record import open_result, readable
from callboard.runs.seal import Sealer, origin_of
from callboard.sans_io import Steps, awaited, plain

__all__ = ["END", "AsyncPastEnds", "End", "PastEnds"]

END = (b"action", b"status", b"result", b"origin", b"seal")  # fields of a record


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a run stands, and how it has ended, if it has."""

    run_id: str
    action: str
    status: str
    caller: str | None
    parent: str | None
    outcome: Outcome | None

    @classmethod
    def of_record(cls, run_id: str, values: Mapping[bytes, bytes], sealer: Sealer) -> End:
        """From the fields `END`; raises `SealError`."""
        with readable(run_id):
            action, result = values[b"action"].decode(), values[b"result"]
            origin = origin_of(sealer, run_id, action, values)
            return cls(
                run_id=run_id,
                action=action,
                status=values[b"status"].decode(),
                caller=origin.caller,
                parent=origin.parent,
                outcome=open_result(sealer, run_id, action, result) if result else None,
            )

    @classmethod
    def of_document(cls, document: Mapping[str, Any], sealer: Sealer) -> End:
        """From the history; raises `SealError`."""
        run_id = str(document["_id"])
        with readable(run_id):
            return cls(
                run_id=run_id,
                action=document["action"],
                status=document["status"],
                caller=document["createdBy"],
                parent=document.get("parent"),
                outcome=open_result(sealer, run_id, document["action"], document["result"]),
            )


class _Past:
    """The ends that the history has."""

    def __init__(self, database: Callable[[], AnyDatabase], sealer: Sealer) -> None:
        self._of = database
        self._sealer = sealer

    def _find(self, run_ids: Sequence[str]) -> Steps[dict[str, End]]:
        """Those of these runs, without what cannot be read. Raises `DatabaseUnavailable`."""
        if not run_ids:
            return {}
        with guarded(READ_SECONDS, "run history"):
            found = yield self._of()[RUNS].find({"_id": {"$in": list(run_ids)}}).to_list()
        ends = {}
        for document in found:
            try:
                end = End.of_document(document, self._sealer)
            except SealError:
                continue
            ends[end.run_id] = end
        return ends


class PastEnds(_Past):
    """For plain code."""

    find = plain(_Past._find)


class AsyncPastEnds(_Past):
    """For an event loop."""

    find = awaited(_Past._find)
