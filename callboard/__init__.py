"""Callboard runs server actions: Python functions that clients call over HTTP."""

from callboard.client.client import Client
from callboard.client.enqueue import enqueue
from callboard.sdk import hooks
from callboard.sdk.action import action
from callboard.sdk.collection import Collection
from callboard.sdk.context import (
    ActionContext,
    ActionTools,
    AsyncActionContext,
    AsyncActionTools,
)
from callboard.sdk.fails import Fails
from callboard.sdk.limit import Limit
from callboard.sdk.results import ActionResult, fail, ok
from callboard.sdk.retry import Retry
from callboard.sdk.schedule import Schedule
from callboard.sdk.where import all_of, exists, gt, gte, lt, lte, ne, one_of

__all__ = [
    "ActionContext",
    "ActionResult",
    "ActionTools",
    "AsyncActionContext",
    "AsyncActionTools",
    "Client",
    "Collection",
    "Fails",
    "Limit",
    "Retry",
    "Schedule",
    "action",
    "all_of",
    "enqueue",
    "exists",
    "fail",
    "gt",
    "gte",
    "hooks",
    "lt",
    "lte",
    "ne",
    "ok",
    "one_of",
]
