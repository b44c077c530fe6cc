"""The jobs that stacks run: nothing, one durable upsert, and to wait for a second."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pymongo import AsyncMongoClient, MongoClient, WriteConcern

__all__ = [
    "COLLECTION",
    "DONE",
    "JOBS",
    "SHORT_JOBS",
    "UPSERT",
    "WAIT",
    "WAIT_SECONDS",
    "changed_data",
    "noop",
    "noop_async",
    "random_record_id",
    "upsert",
    "upsert_async",
    "wait",
    "wait_async",
]

COLLECTION = "players"
DONE = "done"  # what a job returns; a response without it is wrong
RECORDS = 1000  # so that callers seldom meet at one record, and the collection stays small
WAIT_SECONDS = 1.0
DURABLE = WriteConcern("majority", j=True)

Document = dict[str, Any]


def noop() -> str:
    """Do nothing."""
    return DONE


def upsert() -> str:
    """Upsert one record, acknowledged by a majority and journaled."""
    _client().get_default_database()[COLLECTION].with_options(write_concern=DURABLE).update_one(
        {"_id": random_record_id()}, {"$set": changed_data()}, upsert=True
    )
    return DONE


async def noop_async() -> str:
    """`noop` for a worker that runs an event loop."""
    return DONE


async def upsert_async() -> str:
    """`upsert` for a worker that runs an event loop."""
    database = _async_client().get_default_database()
    await (
        database[COLLECTION]
        .with_options(write_concern=DURABLE)
        .update_one({"_id": random_record_id()}, {"$set": changed_data()}, upsert=True)
    )
    return DONE


def wait() -> str:
    """Wait, as for the answer of another service."""
    time.sleep(WAIT_SECONDS)
    return DONE


async def wait_async() -> str:
    """`wait` for a worker that runs an event loop."""
    await asyncio.sleep(WAIT_SECONDS)
    return DONE


JOBS: Mapping[str, Callable[[], str]] = {"noop": noop, "upsert": upsert, "wait": wait}
SHORT_JOBS = ("noop", "upsert")
UPSERT = "upsert"
WAIT = "wait"


def random_record_id() -> str:
    """The id of one of `RECORDS` records."""
    return f"player-{random.randrange(RECORDS)}"


def changed_data() -> Document:
    """What is written; other than before, because a database does not write what it has."""
    return {"displayName": "x", "score": random.randrange(1_000_000)}


@cache
def _client() -> MongoClient[Document]:
    """Opened by the first job, after a worker has forked."""
    return MongoClient(os.environ["MONGODB_URI"])


@cache
def _async_client() -> AsyncMongoClient[Document]:
    return AsyncMongoClient(os.environ["MONGODB_URI"])
