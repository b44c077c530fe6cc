"""``/metrics`` for Prometheus.

Calls are counted in each process; under gunicorn the processes keep their numbers in files of
PROMETHEUS_MULTIPROC_DIR (set by gunicorn.conf.py), and whichever is asked adds them up. What is
counted about runs comes from Redis (`callboard.runs.counters`) and is the same whichever API is
asked: show the largest of them, not the sum.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from functools import cache
from itertools import accumulate

import redis
from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from callboard.connections.keys import Keys
from callboard.errors import BrokerUnavailable
from callboard.runs.counters import BOUNDS, Counts, Times, read_counts

from ..services import current_services
from . import audit

__all__ = ["counted_among", "metrics"]

UNKNOWN = "unknown"  # the one label of all names that are no action: clients choose those

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_process = CollectorRegistry()
_calls = Counter(
    "callboard_calls", "Calls by action and HTTP status", ("action", "status"), registry=_process
)
_call_seconds = Histogram(
    "callboard_call_seconds",
    "From a call's request to its response, the wait for the run included",
    ("action",),
    buckets=_SECONDS,
    registry=_process,
)

metrics = Blueprint("metrics", __name__)


@metrics.get("/metrics")
def page() -> Response:
    """All metrics, as text; without those from Redis while it is away."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_process)
    services = current_services()
    registry.register(_Shared(services.redis, services.runs.keys, services.registry.message_queues))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def counted_among(actions: Container[str]) -> audit.Observer:
    """Counts each call; those of no action under one name."""

    def count(call: audit.EndedCall) -> None:
        action = call.action if call.action in actions else UNKNOWN
        _counter(action, call.status).inc()
        _histogram_of(action).observe(call.seconds)

    return count


@cache
def _counter(action: str, status: int) -> Counter:
    return _calls.labels(action, str(status))


@cache
def _histogram_of(action: str) -> Histogram:
    return _call_seconds.labels(action)


class _Shared(Collector):
    """What all processes count in Redis."""

    def __init__(self, client: redis.Redis, keys: Keys, queues: tuple[str, ...]) -> None:
        self._redis = client
        self._keys = keys
        self._queues = queues

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        try:
            counts = read_counts(self._redis, self._keys, self._queues)
        except BrokerUnavailable:
            yield GaugeMetricFamily("callboard_broker_up", "Whether Redis answers", 0)
            return
        yield GaugeMetricFamily("callboard_broker_up", "Whether Redis answers", 1)
        yield from _gauges(counts)
        yield from _counters(counts)
        yield _histogram(
            "callboard_run_seconds",
            "From the first start of a handler to its run's end",
            counts.run,
        )
        yield _histogram(
            "callboard_queue_wait_seconds", "From a run's enqueuing to its first start", counts.wait
        )
        yield _histogram(
            "callboard_schedule_lateness_seconds",
            "From the planned time of a schedule's fire to its run's first start",
            counts.late,
            label="schedule",
        )


def _gauges(counts: Counts) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "callboard_queue_depth", "Messages that no worker has taken", labels=["queue"]
    )
    for queue, length in counts.queued.items():
        depth.add_metric([queue], length)
    yield depth
    yield GaugeMetricFamily(
        "callboard_open_runs", "Runs that are queued or running, or wait for others", counts.open
    )
    yield GaugeMetricFamily(
        "callboard_waiting_runs",
        "Runs that wait for their time, a signal or a slot (without those in MongoDB)",
        counts.waiting,
    )
    slot = GaugeMetricFamily(
        "callboard_slot_waiting_runs", "Runs that wait for a slot of a limit", labels=["action"]
    )
    for action, number in counts.slot.items():
        slot.add_metric([action], number)
    yield slot
    yield GaugeMetricFamily(
        "callboard_history_backlog", "Ended runs that are not in the history yet", counts.ended
    )


def _counters(counts: Counts) -> Iterator[Metric]:
    runs = CounterMetricFamily(
        "callboard_runs", "Runs that ended, by action and status", labels=["action", "status"]
    )
    for labels, number in counts.runs.items():
        runs.add_metric(labels, number)
    yield runs
    yield _per_action("callboard_retries", "Retries of handlers", counts.retries)
    yield _per_action("callboard_lost", "Workers that died with a run", counts.lost)
    yield CounterMetricFamily(
        "callboard_refused_messages", "Messages that workers dropped", counts.refused
    )


def _per_action(name: str, text: str, numbers: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["action"])
    for action, number in numbers.items():
        family.add_metric([action], number)
    return family


def _histogram(name: str, text: str, times: Mapping[str, Times], label: str = "action") -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label])
    bounds = [*(str(bound / 1000) for bound in BOUNDS), "+Inf"]
    for value, taken in times.items():
        buckets = list(zip(bounds, accumulate(taken.counts), strict=True))
        family.add_metric([value], buckets, taken.sum / 1000)
    return family
