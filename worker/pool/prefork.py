"""Celery's prefork pool, for a worker that outlives its children at every moment."""

from __future__ import annotations

import gc

from celery.concurrency.prefork import TaskPool

__all__ = ["Pool"]


class Pool(TaskPool):
    """The pool of a Callboard worker."""

    def on_start(self) -> None:
        """Called by Celery; forks the children.

        What was made until now is the collector's no more: a collection in the main process would
        write to each object, so that none of their pages stayed shared with the children.
        """
        gc.collect()
        gc.freeze()
        super().on_start()

    def did_start_ok(self) -> bool:
        """Called by Celery once, before its loop: False would end the worker.

        Celery's own answer is False when any child has died by then. Here such a child is
        replaced as later ones are; a pool whose children all die at once still ends the worker,
        by billiard's limit of restarts.
        """
        return True
