"""Celery's prefork pool, as Callboard starts it."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool
from kombu.entity import Queue

from worker.pool.prefork import Pool
from worker.pool.programs import Application


def test_what_the_children_share_is_not_written_to_by_a_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(TaskPool, "on_start", lambda pool: frozen.append(gc.get_freeze_count()))
    try:
        Pool.on_start(object.__new__(Pool))
    finally:
        gc.unfreeze()
    assert frozen[0] > 10_000  # all modules, at the moment of the fork


@pytest.mark.parametrize("queues", [(["mail", "slwo"], None), (["mail"], ["slwo"])])
def test_a_queue_that_no_action_has_is_told_in_one_line(queues: tuple[object, ...]) -> None:
    with pytest.raises(SystemExit, match=r"No action has the queue 'slwo'.*callboard, mail"):
        _worker().setup_queues(*queues)


def test_a_worker_serves_the_queues_that_its_flags_name() -> None:
    worker = _worker()
    worker.setup_queues(["mail"])
    assert list(worker.app.amqp.queues.consume_from) == ["mail"]


def _worker() -> Any:
    """Celery's program, not initialized: that would look at this machine."""
    app = Application("test", set_as_current=False)
    app.conf.task_queues = [Queue("mail"), Queue("callboard")]
    app.conf.task_create_missing_queues = False
    return object.__new__(app.Worker)
