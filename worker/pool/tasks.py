"""The Celery task of an action."""

from __future__ import annotations

from celery import Task

from callboard.runs import message
from callboard.sdk.action import Action

from ..runs.consuming import consume
from .request import RunRequest

__all__ = ["ActionTask"]


class ActionTask(Task):
    """``actions.<name>``: a message with its id wakes a worker for that run.

    Only what this application has signed comes so far (`worker.pool.channel`).
    """

    Request = RunRequest
    acks_late = True
    ignore_result = True
    send_events = False  # the child that runs the run tells
    typing = False

    def __init__(self, action: Action) -> None:
        self.name = action.task

    def run(self) -> None:
        """In the child: the whole run, and those behind it."""
        request = self.request
        first = message.Wakeup(self.name, request.id, request.kwargsrepr)
        consume(self.app, request.hostname, first)
