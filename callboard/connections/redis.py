"""How Callboard's own code reaches Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast

import hiredis
import redis
import redis.asyncio
import structlog
from redis.asyncio.retry import Retry as AsyncReconnect
from redis.backoff import NoBackoff
from redis.retry import Retry as Reconnect

from callboard.connections.redis_url import RedisUrl
from callboard.errors import BrokerUnavailable
from callboard.settings import Settings

__all__ = [
    "TIMEOUT",
    "AsyncPipelinedConnection",
    "PipelinedConnection",
    "connect",
    "connect_async",
    "evicts",
    "exchange",
    "guarded",
    "is_spoiled",
    "log_spoiled",
    "of_type",
    "pack",
]

WRONG_TYPE = "WRONGTYPE"  # how Redis begins its error
LOG_AGAIN_SECONDS = 60.0
PACKET = 50  # commands that `exchange` sends at once
TIMEOUT = 1.5  # seconds for one command: a call must be refused within 2 s


def pack(command: Sequence[Any]) -> bytes:
    """A command as it goes over the wire; of text, bytes and numbers."""
    packed: bytes = hiredis.pack_command(tuple(command))
    return packed


class PipelinedConnection:
    """A connection of one thread's own, for commands that are sent together and whose replies
    are read one by one: the last of them may wait."""

    def __init__(self, client: redis.Redis) -> None:
        self._connection: Any = client.connection_pool.make_connection()  # connects on first use
        self._owed = 0  # replies that nobody has read

    def send(self, *commands: Sequence[Any]) -> Any:
        """Send the commands; the reply to the first. The others' are for `receive`."""
        if self._owed:  # somebody did not wait: what he would have got is not ours
            self.close()
        try:
            self._connection.send_packed_command([b"".join(map(pack, commands))])
        except BaseException:
            self.close()
            raise
        self._owed = len(commands)
        return self.receive()

    def receive(self) -> Any:
        """The next reply."""
        self._owed -= 1
        try:
            return self._connection.read_response()
        except BaseException as error:
            # a replica by now: the address leads elsewhere
            if not isinstance(error, redis.ResponseError) or isinstance(error, redis.ReadOnlyError):
                self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next `send` opens a new one."""
        self._owed = 0
        self._connection.disconnect()


class AsyncPipelinedConnection:
    """A connection of one event loop's own, for one packet of commands at a time."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool: Any = client.connection_pool  # which closes the connection with all others
        self._connection: Any = None

    async def exchange(self, packed: Sequence[bytes]) -> list[Any]:
        """The replies to the commands, each as `pack` makes it; an exception for each that has
        failed.

        Raises `redis.RedisError` or OSError: nothing is sent again, and how much was done, nobody
        knows. The next packet goes over a new connection then.
        """
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        try:
            await self._connection.send_packed_command(b"".join(packed))
            replies = [await self._reply() for _ in packed]
        except BaseException:
            await self._connection.disconnect(nowait=True)
            raise
        return replies

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except redis.ReadOnlyError:  # a replica by now: the address leads elsewhere
            raise
        except redis.ResponseError as error:
            return error


def exchange(client: redis.Redis, commands: Iterable[Sequence[Any]]) -> list[Any]:
    """The replies to the commands, an exception for each that has failed.

    They go in packets; while the server works at one, the next is made. Raises `redis.RedisError`
    or OSError: nothing is sent again, and how much was done, nobody knows.
    """
    pool, replies, left, owed = client.connection_pool, [], iter(commands), 0
    connection: Any = pool.get_connection()
    try:
        while packet := list(map(pack, islice(left, PACKET))):
            connection.send_packed_command([b"".join(packet)])
            replies += [_reply(connection) for _ in range(owed)]
            owed = len(packet)
        replies += [_reply(connection) for _ in range(owed)]
    except BaseException:
        connection.disconnect()  # what it still owes is nobody's
        raise
    finally:
        pool.release(connection)
    return replies


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def connect(settings: Settings, *, max_connections: int = 64) -> redis.Redis:
    """A client with a pool of its own; it connects on first use.

    A command that meets a dead connection is sent once more on a new one, so every command
    that Callboard sends may safely run twice.
    """
    retry = Reconnect(NoBackoff(), 1)
    options = {**_options(settings), "retry": retry, "max_connections": max_connections}
    pool: Any = cast("Any", redis.BlockingConnectionPool)(**options)  # which has no types
    return redis.Redis.from_pool(pool)  # which `close` closes


def connect_async(settings: Settings, *, max_connections: int = 4) -> redis.asyncio.Redis:
    """The same for one event loop."""
    retry = AsyncReconnect(NoBackoff(), 1)
    options = {**_options(settings), "retry": retry, "max_connections": max_connections}
    encrypted = options["connection_class"] is redis.SSLConnection
    options["connection_class"] = (
        redis.asyncio.SSLConnection if encrypted else redis.asyncio.Connection
    )
    pool: Any = cast("Any", redis.asyncio.BlockingConnectionPool)(**options)
    return redis.asyncio.Redis.from_pool(pool)


def _options(settings: Settings) -> dict[str, Any]:
    """Those of a pool, but for what plain connections and awaited ones have of their own."""
    return {
        **RedisUrl.parse(settings.redis_url.get_secret_value()).client_options(),
        "timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry_on_error": [redis.ConnectionError, redis.ReadOnlyError],
        "client_name": "callboard",
    }


class guarded:  # noqa: N801 - reads as a context manager; as a generator it takes thrice as long
    """Turn every failure of Redis into `BrokerUnavailable`.

    ``what``: the script, or the key, that is used here: for the log, where a key is spoiled.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str = "") -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, redis.RedisError | OSError):
            if is_spoiled(error):
                log_spoiled(self._what)
            raise BrokerUnavailable(
                f"The broker is not available ({type(error).__name__}). Try again shortly."
            ) from error


def is_spoiled(error: Exception) -> bool:
    """Whether a key is of another type than its user expects: somebody else has written it."""
    return WRONG_TYPE in str(error)


_logged_until: dict[str, float] = {}  # key -> until when not again, in time.monotonic seconds


def log_spoiled(what: str) -> None:
    """Log it, once a minute at most: it fails with each call."""
    if time.monotonic() < _logged_until.get(what, 0.0):
        return
    _logged_until[what] = time.monotonic() + LOG_AGAIN_SECONDS
    structlog.get_logger("callboard.broker").error(
        "a key in Redis is of another type than Callboard gave it",
        used_by=what,
        next="`callboard doctor` names the key: RENAME it away, or restore it",
    )


def of_type(reply: Any) -> Any:
    """A pipeline's reply; None for a key that is of another type than Callboard gave it.

    Raises any other error.
    """
    if not isinstance(reply, Exception):
        return reply
    if is_spoiled(reply):
        return None
    raise reply


def evicts(client: redis.Redis) -> str | None:
    """How the server throws keys away when it is full; "" where it does not.

    None where it does not say: access control lists and hosted servers may forbid the question.
    Raises `BrokerUnavailable`.
    """
    with guarded():
        try:
            memory = client.info("memory")
        except redis.ResponseError:
            return None
    policy, limit = memory.get("maxmemory_policy"), memory.get("maxmemory")
    if policy == "noeviction" or (policy and limit == 0):
        return ""
    return f"maxmemory {limit} and maxmemory-policy {policy}" if policy else None
