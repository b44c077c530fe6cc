"""The Celery task of an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Task
from celery.utils.log import get_logger
from celery.worker.strategy import default

from callboard import message
from callboard.action import Action
from worker.request import RunRequest
from worker.turn import take_turn

__all__ = ["ActionTask", "signed_only"]

logger = get_logger(__name__)


class ActionTask(Task):
    """``actions.<name>``: a message with its id wakes a worker for that run."""

    Request = RunRequest
    Strategy = f"{__name__}:signed_only"
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
        take_turn(self.app, request.hostname, first)


def signed_only(task: ActionTask, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """A Celery strategy that drops every message that this application did not sign.

    What passes goes on with headers written anew: a message chooses no time limit, no retry
    count, no callback and no expiry.
    """
    handle = default(task, app, consumer, **options)
    services = app.services

    def on_message(received: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        tag = received.headers.get(message.SIGNATURE_HEADER)
        try:
            wakeup = message.wakeup(received.headers)
        except (TypeError, LookupError):
            wakeup = message.Wakeup(task.name, str(received.headers.get("id")), "")
            tag = None
        if bytes(received.body) != message.BODY or not services.sealer.is_signed(tag, *wakeup):
            services.refuse("message without a valid signature", task.name, wakeup.run_id)
            return ack(logger, consumer.connection_errors)
        received.content_type, received.content_encoding = "application/json", "utf-8"
        received.headers = message.headers(wakeup, tag)
        return handle(received, body, ack, reject, callbacks)

    return on_message
