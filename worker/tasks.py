"""The Celery task of an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Task
from celery.utils.log import get_logger
from celery.worker.strategy import default

from callboard import message
from callboard.action import Action
from worker.execution import RunFailed, execute

__all__ = ["ActionTask", "signed_only"]

logger = get_logger(__name__)


class ActionTask(Task):
    """``actions.<name>``: a message with its id wakes a worker for that run."""

    Request = "worker.request:RunRequest"
    Strategy = "worker.tasks:signed_only"
    acks_late = True
    ignore_result = True
    typing = False
    throws = (RunFailed,)  # logged by the run itself

    def __init__(self, action: Action) -> None:
        self.action = action
        self.name = action.task

    def run(self) -> None:
        """In the child: the whole run. Nothing is taken from the message but its id."""
        execute(self.app.services, self.action, self.request.id)


def signed_only(task: ActionTask, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """A Celery strategy that drops every message that this application did not sign.

    What passes goes on with headers written anew: a message chooses no time limit, no retry
    count, no callback and no expiry.
    """
    handle = default(task, app, consumer, **options)
    services = app.services

    def on_message(received: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        fields = received.headers
        run_id, display = fields.get("id"), fields.get("kwargsrepr")
        tag = fields.get(message.SIGNATURE_HEADER)
        authentic = (
            isinstance(run_id, str)
            and isinstance(display, str)
            and bytes(received.body) == message.BODY
            and services.sealer.is_signed(tag, *message.signed_parts(task.name, run_id, display))
        )
        if not authentic:
            services.refuse("message without a valid signature", task.name, run_id)
            return ack(logger, consumer.connection_errors)
        received.content_type, received.content_encoding = "application/json", "utf-8"
        received.headers = message.headers(task.name, run_id, display, tag)
        return handle(received, body, ack, reject, callbacks)

    return on_message
