"""Builds the Celery application: one task per action, and the settings that make it safe."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from kombu.entity import Queue

from callboard.connections.redis_url import RedisUrl
from callboard.log.lines import configure_logging
from callboard.log.run_lines import keep
from callboard.registry import Registry, get_registry
from callboard.settings import Settings, default_workers, get_settings
from callboard.tracing import asked_for

from .archive.archiver import ArchiverStep
from .hooks.step import HooksStep
from .lease.keeper import KeeperStep
from .loop.step import LoopStep
from .outbox.publisher import PublisherStep
from .pool.channel import Amqp, Gate, Transport
from .pool.consumer import RunConsumer
from .pool.eviction import EvictionStep
from .pool.logs import connect_logging, run_adder
from .pool.prefork import Pool
from .pool.preparation import DatabaseStep
from .pool.programs import Application
from .pool.strays import StraysStep
from .pool.tasks import ActionTask
from .schedules.scheduler import ActionScheduler
from .services import Services
from .tools.indexes import check_indexes

if TYPE_CHECKING:
    from .runs.tracing import RunTracing

__all__ = ["create_app"]

_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {
        "TCP_KEEPIDLE": 5,  # seconds
        "TCP_KEEPINTVL": 2,  # seconds
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 10_000,  # milliseconds
    }.items()
    if hasattr(socket, name)
}
"""Celery waits for its broker without a timeout, and the kernel would take two hours to notice that
the broker's machine has lost its power."""


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Application:
    """The worker's Celery application, from the environment unless told otherwise.

    Raises `ConfigurationError` for wrong settings or a wrong actions package.
    """
    settings = settings or get_settings()
    registry = registry or get_registry()
    check_indexes(registry.collections)
    services = Services(settings, registry, _tracing())
    configure_logging(
        *(keep, run_adder(services.scoreboard)),
        development=settings.development,
        redact=services.redactor,
    )
    connect_logging()
    app = Application("callboard", amqp=Amqp, set_as_current=False)
    app.conf.update(_configuration(services))
    app.steps["worker"].update(
        (
            *(EvictionStep, LoopStep, HooksStep, KeeperStep, DatabaseStep),
            *(ArchiverStep, PublisherStep, StraysStep),
        )
    )
    app.services = services
    app.finalize()
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)  # a message may start actions and nothing else
    for action in registry.actions.values():
        app.register_task(ActionTask(action))
    return app


def _configuration(services: Services) -> dict[str, Any]:
    settings, registry = services.settings, services.registry
    return {
        **RedisUrl.parse(settings.redis_url.get_secret_value()).celery_options(),
        # JSON only, on every wire
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        # The run record holds results; Celery's own result store is off.
        "task_ignore_result": True,
        "result_backend": None,
        # A message is only a wake-up, and a lost one is sent again from the run record
        # (`Runs.sweep`). So kombu need not keep unacknowledged messages in Redis: that would
        # cost four writes a run, and redeliver runs that go on.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport": _named(Transport),
        "broker_transport_options": {
            "gate": Gate(services),
            "global_keyprefix": services.keys.celery,  # of queues and channels; Flower knows it
            "ack_emulation": False,
            "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # such as that the server became a replica
        # Queues: those that the actions name, and no others
        "task_queues": [Queue(name, exchange="", routing_key=name) for name in registry.queues],
        "task_create_missing_queues": False,
        "task_default_queue": registry.queues[0],
        # Flower
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        # Processes
        "worker_pool": _named(Pool),
        "worker_concurrency": default_workers(),
        "worker_consumer": _named(RunConsumer),
        "worker_proc_alive_timeout": 30.0,  # seconds
        "worker_lost_wait": 0.1,  # seconds: no result is on its way, it is in the run record
        "worker_max_tasks_per_child": 10_000,
        "worker_max_memory_per_child": 1_000_000,  # KiB: a child that grew is replaced
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_scheduler": _named(ActionScheduler),
        "beat_max_loop_interval": 1.0,  # seconds
        "timezone": "UTC",
        "enable_utc": True,
    }


def _tracing() -> RunTracing | None:
    """The spans of runs, if OpenTelemetry's variables ask for them."""
    if not asked_for(os.environ):
        return None
    from .runs.tracing import RunTracing  # needs the extra

    return RunTracing()


def _named(kind: type) -> str:
    """``module:Class``, as Celery takes and shows it."""
    return f"{kind.__module__}:{kind.__name__}"
