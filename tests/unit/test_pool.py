"""Celery's prefork pool, as Callboard starts it."""

from __future__ import annotations

import gc

import pytest
from celery.concurrency.prefork import TaskPool

from worker.pool.prefork import Pool


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
