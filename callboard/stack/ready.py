"""Whether a part of the stack answers. Each question takes a fraction of a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "database_writes",
    "http_answers",
    "key_exists",
    "no_transaction",
    "redis_answers",
    "transaction_commits",
]

TIMEOUT = 0.3  # seconds for one question


def redis_answers(url: str) -> bool:
    """Whether the Redis server at ``url`` answers PING: no while it loads its data."""
    return _ask_redis(url, lambda client: client.ping())


def key_exists(url: str, pattern: str) -> bool:
    """Whether the Redis server at ``url`` holds a key that matches ``pattern``."""
    return _ask_redis(url, lambda client: any(client.scan_iter(pattern, count=1000)))


def _ask_redis(url: str, question: Callable[[Any], Any]) -> bool:
    import redis

    from callboard.connections.redis_url import RedisUrl

    bounds = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    pool = redis.ConnectionPool(**{**RedisUrl.parse(url).client_options(), **bounds})
    try:
        return bool(question(redis.Redis(connection_pool=pool)))
    except (redis.RedisError, OSError):
        return False
    finally:
        pool.disconnect()


def http_answers(url: str) -> bool:
    """Whether a GET of ``url`` (plain http) answers 200."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def database_writes(uri: str) -> bool:
    """Whether MongoDB at ``uri`` is a primary that takes writes."""
    return no_transaction(uri, timeout=TIMEOUT) is None


def no_transaction(uri: str, *, timeout: float) -> str | None:
    """Why MongoDB at ``uri`` commits no transaction; None where it does.

    ``timeout``: seconds to find the server.
    """
    from pymongo.errors import PyMongoError

    try:
        transaction_commits(uri, timeout=timeout)
    except PyMongoError as error:
        return f"{error!s:.300}"
    return None


def transaction_commits(uri: str, *, timeout: float) -> float:
    """Commit a transaction that leaves nothing behind; the seconds that it took.

    Raises PyMongoError where the server is away, no primary, or knows no transactions.
    ``timeout``: seconds to find the server.
    """
    import pymongo

    milliseconds = int(timeout * 1000)
    with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=milliseconds) as client:
        client.admin.command("ping")
        started = time.monotonic()
        with client.start_session() as session, session.start_transaction():
            checks = client.get_default_database()["_checks"]
            checks.insert_one({"_id": session.session_id["id"]}, session=session)
            checks.delete_one({"_id": session.session_id["id"]}, session=session)
        return time.monotonic() - started
