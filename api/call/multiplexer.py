"""The multiplexer: the one connection on which an API process gives its calls to the broker.

The orders of all requests go out on it, those that are ready in the same moment in one packet;
replies, and what is published to the process's channel, come in on it (RESP3 tells them apart)
and are read by one thread. So a call costs no connection and no wait of its own.

A connection that breaks is opened anew, and what was not answered is sent once more: every order
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

__all__ = ["Multiplexer", "Order"]

SILENCE_SECONDS = 15.0  # a connection that answers no PING for so long is dead
PING_SECONDS = 5.0
RECONNECT_SECONDS = 0.2

_BROKEN = (redis.RedisError, OSError, ValueError, BrokerUnavailable)


class Order:
    """A command on its way to the broker."""

    __slots__ = ("packed", "sendings", "told")

    def __init__(self, packed: bytes, told: Callable[[Any], None]) -> None:
        self.packed = packed
        self.told: Callable[[Any], None] | None = told  # gets the reply, or what went wrong
        self.sendings = 0

    def answer(self, reply: Any) -> None:
        """Tell whoever still wants to know."""
        self.packed = b""  # may be large, and the caller may wait long
        if self.told:
            self.told(reply)


class Multiplexer:
    """Orders out, replies and messages in.

    ``scripts`` are known to the server whenever an order is sent; ``on_message`` gets what is
    published to ``channel``; ``on_open`` is called when that begins, with each connection anew,
    and ``on_turn`` then and every few seconds.
    """

    def __init__(
        self,
        client: redis.Redis,
        channel: str,
        *,
        scripts: Sequence[str],
        on_message: Callable[[bytes], None],
        on_turn: Callable[[], None],
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = client.connection_pool
        self._channel = channel
        self._scripts = scripts
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_open = on_open
        self._connection: Any = None  # only while it is subscribed
        self._guard = threading.Lock()  # of `_gathered`
        self._gathered: list[Order] = []  # for the next packet
        self._sending = threading.Lock()  # of what follows
        self._awaited: deque[Order] = deque()  # sent, or to be sent on the next connection
        self._closed = threading.Event()
        # One for good: the pool keeps every connection that it has ever made
        self._opened: Any = self._pool.make_connection()
        self._reader = supervise("replies", self._run, self._closed)

    def post(self, command: Sequence[Any], told: Callable[[Any], None]) -> Order:
        """Send a command; ``told`` gets its reply, or the exception that came instead.

        It is called by the reader and must not block.
        """
        order = Order(pack(command), told)
        with self._guard:
            self._gathered.append(order)
            first = len(self._gathered) == 1
        if first:
            try:
                time.sleep(0)  # lets those come along that are ready in this moment
            finally:
                self._flush()
        return order

    def give_up(self, order: Order) -> None:
        """Nobody waits for this reply any more, because the server does not answer."""
        order.told = None
        with self._sending:
            if self._connection and order in self._awaited:
                self._connection.disconnect()  # wakes the reader

    def close(self) -> None:
        """End the reader; whoever still waits is told nothing more."""
        self._closed.set()
        self._opened.disconnect()
        self._reader.join()

    def _flush(self) -> None:
        with self._sending:
            with self._guard:
                batch, self._gathered = self._gathered, []
            self._awaited.extend(batch)
            self._send(batch)

    def _send(self, orders: Sequence[Order]) -> None:
        """Under `_sending`, so that replies come in the order of `_awaited`."""
        if not self._connection or not orders:
            return
        for order in orders:
            order.sendings += 1
        with contextlib.suppress(*_BROKEN):  # the reader meets it too, and starts anew
            self._connection.send_packed_command([b"".join(order.packed for order in orders)])

    # In the reader's thread

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._open(self._opened)
                self._on_open()
                self._read(self._opened)
            except _BROKEN as error:
                opened = self._put_down(error)
                if not opened:
                    self._closed.wait(RECONNECT_SECONDS)
            except Exception as error:  # the supervisor tells, and calls again
                self._put_down(redis.ConnectionError(f"the reader failed: {type(error).__name__}"))
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
            self._awaited = deque(order for order in self._awaited if order.told)
            self._connection = connection
            self._send(self._awaited)

    def _put_down(self, error: Exception) -> bool:
        """The connection broke, or there is none: whether there had been one.

        What was sent twice, or could not be sent at all, is answered with the error.
        """
        with self._sending:
            opened, self._connection = self._connection is not None, None
            failed = [order for order in self._awaited if not opened or order.sendings > 1]
            for order in failed:
                self._awaited.remove(order)
        for order in failed:
            order.answer(error)
        return opened

    def _read(self, connection: Any) -> None:
        """Hand out what comes, as long as the server answers now and then."""
        turn_at, silent_at = 0.0, time.monotonic() + SILENCE_SECONDS
        while not self._closed.is_set():
            now = time.monotonic()
            if now >= turn_at:
                self.post(["PING"], lambda _: None)
                self._on_turn()
                turn_at = now + PING_SECONDS
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
