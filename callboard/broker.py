"""How Callboard's own code reaches Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as Reconnect

from callboard.errors import BrokerUnavailable
from callboard.settings import Settings

__all__ = ["BatchingRedis", "Line", "connect", "guarded"]

TIMEOUT = 1.5  # seconds for one command: a call must be refused within 2 s


class _Request:
    """A packed command on its way to Redis, and its reply."""

    __slots__ = ("_wake", "leads", "packed", "reply")

    def __init__(self, packed: list[bytes]) -> None:
        self.packed = packed
        self.reply: Any = None
        self.leads = False  # told to send the next batch
        self._wake = threading.Lock()
        self._wake.acquire()

    def wait(self) -> None:
        self._wake.acquire()

    def wake(self) -> None:
        self._wake.release()


class BatchingRedis(redis.Redis):
    """A client whose scripts share one connection: those that come together are sent together.

    The first thread (or greenlet) to come sends what has gathered and reads the replies; the
    first of those who came meanwhile is next. Nobody takes a connection from a pool, and under
    load several calls share a system call.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._guard = threading.Lock()
        self._gathered: list[_Request] = []  # for the next batch
        self._batch: list[_Request] = []  # on its way
        self._sending = False
        self._line: Any = self.connection_pool.make_connection()  # connects on first use

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's; scripts go in batches."""
        if args[0] != "EVALSHA":
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        request = _Request(self._line.pack_command(*args))
        try:
            self._join(request)
            if request.leads:
                self._lead(request)
        except BaseException:  # a handler was stopped, or a greenlet killed, in the middle
            self._abandon(request)
            raise
        if isinstance(request.reply, Exception):
            raise request.reply
        return request.reply

    def close(self) -> None:
        """Close all connections."""
        self._line.disconnect()
        super().close()

    def _join(self, request: _Request) -> None:
        """Wait until the reply is there, or until the request leads."""
        with self._guard:
            self._gathered.append(request)
            request.leads, self._sending = not self._sending, True
        if not request.leads:
            request.wait()

    def _lead(self, request: _Request) -> None:
        """Send a batch, this request in it, and read its replies."""
        with self._guard:
            self._batch, self._gathered = self._gathered, []
        self._exchange(self._batch)
        self._hand_over(request)

    def _hand_over(self, request: _Request) -> None:
        """Wake those whose replies are there, and the next to lead."""
        with self._guard:
            request.leads = False
            batch, self._batch = self._batch, []
            self._sending = bool(self._gathered)
            if self._sending:
                self._gathered[0].leads = True
                self._gathered[0].wake()
        for other in batch:
            if other is not request:
                other.wake()

    def _abandon(self, request: _Request) -> None:
        """Leave nobody waiting, and no reply in the connection, when a request is cut short."""
        with self._guard:
            if request in self._gathered:
                self._gathered.remove(request)
        if request.leads:
            self._line.disconnect()
            for other in self._batch:
                other.reply = other.reply or redis.ConnectionError("the batch was cut short")
            self._hand_over(request)

    def _exchange(self, batch: list[_Request]) -> None:
        """Set each reply; on a broken connection all are sent once more, on a new one."""
        for last in (False, True):
            try:
                self._line.send_packed_command([part for r in batch for part in r.packed])
                for request in batch:
                    request.reply = self._read()
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                self._line.disconnect()
                for request in batch:
                    request.reply = error
                if last or isinstance(error, redis.TimeoutError):
                    return
            else:
                if any(isinstance(request.reply, redis.ReadOnlyError) for request in batch):
                    self._line.disconnect()  # a replica by now: the address leads elsewhere
                    self.connection_pool.disconnect(inuse_connections=False)
                return

    def _read(self) -> Any:
        try:
            return self._line.read_response()
        except redis.ResponseError as error:
            return error


class Line:
    """A connection of one thread's own, for commands that are sent together and whose replies
    are wanted one by one: the last of them may wait."""

    def __init__(self, client: redis.Redis) -> None:
        self._connection: Any = client.connection_pool.make_connection()  # connects on first use
        self._owed = 0  # replies that nobody has read

    def send(self, *commands: Sequence[Any]) -> Any:
        """Send the commands; the reply to the first. The others' are for `receive`."""
        if self._owed:  # somebody did not wait: what he would have got is not ours
            self.close()
        with self._closed_on_error():
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            self._owed = len(commands)
            return self.receive()

    def receive(self) -> Any:
        """The next reply."""
        with self._closed_on_error():
            self._owed -= 1
            return self._connection.read_response()

    def close(self) -> None:
        """Close the connection; the next `send` opens a new one."""
        self._owed = 0
        self._connection.disconnect()

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except redis.ReadOnlyError:  # a replica by now: the address leads elsewhere
            self.close()
            raise
        except redis.ResponseError:
            raise
        except BaseException:
            self.close()
            raise


def connect(settings: Settings, *, max_connections: int = 64) -> BatchingRedis:
    """A client with a pool of its own; it connects on first use.

    A command that meets a dead connection is sent once more on a new one, so every command
    that Callboard sends may safely run twice.
    """
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=max_connections,
        timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Reconnect(NoBackoff(), 1),
        retry_on_error=[redis.ConnectionError, redis.ReadOnlyError],
        client_name="callboard",
    )
    return BatchingRedis(connection_pool=pool)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn every failure of Redis into `BrokerUnavailable`."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"The broker is not available ({type(error).__name__}). Try again shortly."
        ) from error
