"""How the worker's main process follows a child: Celery's request, telling the keeper."""

from __future__ import annotations

from typing import Any

from celery.exceptions import WorkerLostError
from celery.worker.request import Request
from structlog.contextvars import bound_contextvars

__all__ = ["RunRequest"]


class RunRequest(Request):
    """The message that a child was given; by now the child may execute another run
    (`worker.runs.consuming`)."""

    @property
    def _keeper(self) -> Any:
        return self.app.keeper

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """The child raised, or died."""
        held = None
        if self.worker_pid and isinstance(_cause(exc_info), WorkerLostError | SystemExit):
            held = self._keeper.child_died(self.worker_pid)
            if held and self._eventer and self._eventer.enabled:
                fields = {"exception": "Its process was stopped, or died", "traceback": None}
                self._eventer.send("task-failed", uuid=held.run_id, **fields)
        with bound_contextvars(**held.names if held else {}):  # for the line that Celery writes
            return super().on_failure(exc_info, send_failed_event, return_ok)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """A cold shutdown: the child is stopped, the run goes back to its queue."""
        held = self._keeper.take_out(self.worker_pid)
        super().cancel(pool, signal="KILL", emit_retry=False)
        if held:
            self._keeper.hand_back(held)


def _cause(exc_info: Any) -> BaseException:
    error = exc_info.exception
    return getattr(error, "exc", error)  # type: ignore[no-any-return]
