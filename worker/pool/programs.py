"""Celery's worker and beat, with their banners on a terminal only: a log is made of lines.

Instead both tell in one line of the log that they are ready.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any

import structlog
from celery import Celery
from celery.apps import beat, worker
from celery.apps.worker import install_worker_term_handler
from celery.utils.text import str_to_list

__all__ = ["Application"]


class Application(Celery):
    """A Celery application with these programs."""

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """``celery worker``."""
        return self.subclass_with_self(Worker)

    @cached_property
    def Beat(self) -> Any:  # noqa: N802
        """``celery beat``."""
        return self.subclass_with_self(Beat)


class Worker(worker.Worker):
    """Celery's, quiet where nobody looks."""

    def on_before_init(self, quiet: bool = False, **options: Any) -> None:
        """Called by Celery."""
        super().on_before_init(quiet=quiet or not sys.stdout.isatty(), **options)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Called by Celery; a SIGTERM is told by `on_close`, and not by a bare line."""
        super().install_platform_tweaks(worker)
        if not sys.stdout.isatty():
            install_worker_term_handler(worker, verbose=False)

    def on_close(self) -> None:
        """Called by Celery when it begins to stop."""
        super().on_close()
        structlog.get_logger("callboard.worker").info("worker stopping", worker=self.hostname)

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Called by Celery with the flags --queues and --exclude-queues."""
        known = sorted(self.app.amqp.queues)
        for name in (*str_to_list(include or ()), *str_to_list(exclude or ())):
            if name not in known:
                sys.exit(
                    f"callboard: No action has the queue {name!r}; those of the actions are "
                    f"{', '.join(known)}: correct --queues, or name it in @action(queue=...)."
                )
        super().setup_queues(include, exclude)

    def prepare_args(self, **options: Any) -> dict[str, Any]:
        """Called by Celery. Workers know of each other by the run records: none hears others."""
        return {**options, "without_gossip": True, "without_mingle": True}

    def on_consumer_ready(self, consumer: Any) -> None:
        """Called by Celery, again after each reconnect."""
        super().on_consumer_ready(consumer)
        structlog.get_logger("callboard.worker").info(
            "worker ready",
            worker=self.hostname,
            queues=sorted(self.app.amqp.queues.consume_from),
            processes=self.concurrency,
        )


class Beat(beat.Beat):
    """The same for beat."""

    def __init__(self, *, quiet: bool = False, **options: Any) -> None:
        super().__init__(quiet=quiet or not sys.stdout.isatty(), **options)
