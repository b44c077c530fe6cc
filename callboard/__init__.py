"""Callboard runs server actions: Python functions that clients call over HTTP."""

from callboard.action import action
from callboard.client import Client
from callboard.collection import Collection
from callboard.context import ActionContext, ActionTools
from callboard.results import ActionResult, fail, ok
from callboard.retry import Retry
from callboard.schedule import Schedule
from callboard.where import all_of, exists, gt, gte, lt, lte, ne, one_of

__all__ = [
    "ActionContext",
    "ActionResult",
    "ActionTools",
    "Client",
    "Collection",
    "Retry",
    "Schedule",
    "action",
    "all_of",
    "exists",
    "fail",
    "gt",
    "gte",
    "lt",
    "lte",
    "ne",
    "ok",
    "one_of",
]
