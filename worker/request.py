"""How the worker's main process follows a run: Celery's request, telling the keeper."""

from __future__ import annotations

from typing import Any

from celery.exceptions import WorkerLostError
from celery.worker.request import Request
from structlog.contextvars import bound_contextvars

__all__ = ["RunRequest"]


class RunRequest(Request):
    """The run's message while this worker has it."""

    @property
    def _keeper(self) -> Any:
        return self.app.keeper

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A child took the run."""
        self._keeper.accepted(self.id, self.task.action, pid, time_accepted)
        super().on_accepted(pid, time_accepted)

    def acknowledge(self) -> None:
        """The child is done with it, well or not."""
        self._keeper.released(self.id, self.worker_pid)
        super().acknowledge()

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """The child raised, or died."""
        held = self._keeper.released(self.id, self.worker_pid)
        if held and isinstance(_cause(exc_info), WorkerLostError | SystemExit):
            self._keeper.child_died(held)
        with bound_contextvars(run_id=self.id, action=self.task.action.name):  # for Celery's line
            return super().on_failure(exc_info, send_failed_event, return_ok)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """A cold shutdown: the child is stopped, the run goes back to its queue."""
        held = self._keeper.released(self.id, self.worker_pid)
        super().cancel(pool, signal="KILL", emit_retry=False)
        if held:
            self._keeper.hand_back(held)


def _cause(exc_info: Any) -> BaseException:
    error = exc_info.exception
    return getattr(error, "exc", error)  # type: ignore[no-any-return]
