"""The multiplexer: the one connection on which an API process gives its calls to the broker.

The commands of all requests go out on it, those that are ready in the same moment in one packet;
replies, and what is published to the process's channel, come in on it (RESP3 tells them apart)
and are read by one thread. So a call costs no connection and no wait of its own.

A connection that breaks is opened anew, and what was not answered is sent once more: every command
may safely be carried out twice.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis
from hiredis import PushNotification

from callboard.connections.redis import pack
from callboard.errors import BrokerUnavailable
from callboard.processes.threads import supervise

__all__ = ["Multiplexer", "PendingCommand"]

SILENCE_SECONDS = 15.0  # a connection that answers no PING for so long is dead
PING_SECONDS = 5.0
RECONNECT_SECONDS = 0.2

_BROKEN = (redis.RedisError, OSError, ValueError, BrokerUnavailable)


class PendingCommand:
    """A command on its way to the broker."""

    __slots__ = ("callback", "packed", "sent_count")

    def __init__(self, packed: bytes, callback: Callable[[Any], None]) -> None:
        self.packed = packed
        self.callback: Callable[[Any], None] | None = callback  # gets the reply, or what went wrong
        self.sent_count = 0

    def answer(self, reply: Any) -> None:
        """Give the reply to whoever still waits for it."""
        self.packed = b""  # may be large, and the caller may wait long
        if self.callback:
            self.callback(reply)


class Multiplexer:
    """Commands out, replies and messages in.

    ``scripts`` are known to the server whenever a command is sent; ``on_message`` gets what is
    published to ``channel``; ``on_open`` is called when that begins, with each connection anew,
    and ``on_interval`` then and every few seconds.
    """

    def __init__(
        self,
        client: redis.Redis,
        channel: str,
        *,
        scripts: Sequence[str],
        on_message: Callable[[bytes], None],
        on_interval: Callable[[], None],
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = client.connection_pool
        self._channel = channel
        self._scripts = scripts
        self._on_message = on_message
        self._on_interval = on_interval
        self._on_open = on_open
        self._connection: Any = None  # only while it is subscribed
        self._guard = threading.Lock()  # of `_gathered`
        self._gathered: list[PendingCommand] = []  # for the next packet
        self._sending = threading.Lock()  # of what follows
        self._awaited: deque[PendingCommand] = deque()  # sent, or to be sent on the next connection
        self._closed = threading.Event()
        # One for good: the pool keeps every connection that it has ever made
        self._opened: Any = self._pool.make_connection()
        self._reader = supervise("replies", self._run, self._closed)

    def post(self, command: Sequence[Any], callback: Callable[[Any], None]) -> PendingCommand:
        """Send a command; ``callback`` gets its reply, or the exception that came instead.

        It is called by the reader and must not block.
        """
        pending = PendingCommand(pack(command), callback)
        with self._guard:
            self._gathered.append(pending)
            first = len(self._gathered) == 1
        if first:
            try:
                time.sleep(0)  # lets those come along that are ready in this moment
            finally:
                self._flush()
        return pending

    def give_up(self, pending: PendingCommand) -> None:
        """Nobody waits for this reply any more, because the server does not answer."""
        pending.callback = None
        with self._sending:
            if self._connection and pending in self._awaited:
                self._connection.disconnect()  # wakes the reader

    def close(self) -> None:
        """End the reader; whoever still waits hears nothing more."""
        self._closed.set()
        self._opened.disconnect()
        self._reader.join()

    def _flush(self) -> None:
        with self._sending:
            with self._guard:
                batch, self._gathered = self._gathered, []
            self._awaited.extend(batch)
            self._send(batch)

    def _send(self, commands: Sequence[PendingCommand]) -> None:
        """Under `_sending`, so that replies come in the order of `_awaited`."""
        if not self._connection or not commands:
            return
        for pending in commands:
            pending.sent_count += 1
        with contextlib.suppress(*_BROKEN):  # the reader meets it too, and starts anew
            self._connection.send_packed_command([b"".join(pending.packed for pending in commands)])

    # In the reader's thread

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._open(self._opened)
                self._on_open()
                self._read(self._opened)
            except _BROKEN as error:
                opened = self._disconnected(error)
                if not opened:
                    self._closed.wait(RECONNECT_SECONDS)
            except Exception as error:  # the supervisor tells, and calls again
                self._disconnected(
                    redis.ConnectionError(f"the reader failed: {type(error).__name__}")
                )
                raise
            finally:
                self._opened.disconnect()

    def _open(self, connection: Any) -> None:
        """Connect, and send again what was not answered."""
        connection.connect()
        for script in self._scripts:
            connection.send_command("SCRIPT LOAD", script)
            connection.read_response()
        connection.send_command("SUBSCRIBE", self._channel)
        connection.read_response(push_request=True)
        with self._sending:
            self._awaited = deque(pending for pending in self._awaited if pending.callback)
            self._connection = connection
            self._send(self._awaited)

    def _disconnected(self, error: Exception) -> bool:
        """The connection broke, or there is none: whether there had been one.

        What was sent twice, or could not be sent at all, is answered with the error.
        """
        with self._sending:
            opened, self._connection = self._connection is not None, None
            failed = [pending for pending in self._awaited if not opened or pending.sent_count > 1]
            for pending in failed:
                self._awaited.remove(pending)
        for pending in failed:
            pending.answer(error)
        return opened

    def _read(self, connection: Any) -> None:
        """Hand out what comes, as long as the server answers now and then."""
        ping_at, silent_at = 0.0, time.monotonic() + SILENCE_SECONDS
        while not self._closed.is_set():
            now = time.monotonic()
            if now >= ping_at:
                self.post(["PING"], lambda _: None)
                self._on_interval()
                ping_at = now + PING_SECONDS
            try:
                reply = connection.read_response(disconnect_on_error=False, push_request=True)
            except redis.TimeoutError:
                if now > silent_at:
                    raise
                continue
            except (redis.ReadOnlyError, redis.exceptions.NoScriptError):
                self._pool.disconnect(inuse_connections=False)  # the address leads elsewhere now
                raise
            except redis.ResponseError as error:
                reply = error
            silent_at = now + SILENCE_SECONDS
            if not isinstance(reply, PushNotification):
                self._answer(reply)
            elif reply[0] == b"message":
                self._on_message(reply[2])

    def _answer(self, reply: Any) -> None:
        if not self._awaited:
            raise redis.ConnectionError("a reply that nobody has asked for")
        self._awaited.popleft().answer(reply)
