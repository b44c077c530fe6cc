"""What a worker takes from the broker: kombu's channel, behind a gate.

Whoever can write Redis can put anything on a queue and publish anything. So a task message is
read by `callboard.runs.message`, which knows one form of it, before kombu decodes it; kombu gets a
message written anew, and nothing of what it would otherwise obey: no compression, no other
encoding, no delivery tag. Celery's remote control is not signed, as Flower could not do that: of it
only what asks (`LOOKING`) gets through. Stopping a worker, its pool or its tasks is for whoever can
signal its process.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import redis
import structlog
from celery.app.amqp import AMQP
from kombu import connection as kombu_connection
from kombu.transport import redis as kombu_redis, virtual

from callboard.connections.redis import is_spoiled, log_spoiled
from callboard.runs import message

if TYPE_CHECKING:
    from ..services import Services

__all__ = ["LOOKING", "Amqp", "Channel", "Gate", "QoS", "Transport", "is_question"]

_log = structlog.get_logger("callboard.worker")

MAX_CONTROL_BYTES = 64 * 1024
CONTROL = b".celery.pidbox"  # in the name of the channel of Celery's remote control

LOOKING = {
    *("active", "active_queues", "conf", "enable_events", "heartbeat", "ping", "registered"),
    *("reserved", "revoked", "scheduled", "stats"),
}
"""What Flower and `celery inspect` ask of a worker."""


@dataclass(frozen=True)
class Gate:
    """What a channel is given to tell messages by: a transport option."""

    services: Services

    def __json__(self) -> None:
        """Nothing: `celery inspect stats` tells the transport's options."""


class Message(virtual.Message):
    """A message that is not decompressed: a few bytes could become as many as there is memory."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        if "compression" in (payload.get("headers") or ()):
            raise ValueError("compressed")
        super().__init__(payload, channel=channel, **options)


class QoS(virtual.QoS):
    """What a channel has handed out: put back when the channel closes, as far as that can be."""

    def restore_unacked(self) -> list[Any]:
        """Put it back. What the broker does not take is let go: its run's record has it woken
        again, and kombu would write it to a file that nobody ever reads or removes."""
        if left := super().restore_unacked():
            _log.info("wake-ups were not put back: their records will send them", number=len(left))
        return []


class Channel(kombu_redis.Channel):
    """kombu's channel; its transport option ``gate`` says what may pass."""

    Message = Message
    gate: Gate
    from_transport_options: Any = (*kombu_redis.Channel.from_transport_options, "gate")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = QoS  # type: ignore[assignment]  # kombu sets its base class here, too

    @cached_property
    def client(self) -> Any:
        """The client of kombu's queues: what it pops passes the gate first."""
        client = super().client
        client.set_response_callback("BRPOP", self._passed)
        return client

    def _passed(self, popped: Any, **_: Any) -> Any:
        """The queue and its message, written anew; None, as if none had come, if it is not ours.

        Other queues are those of Celery's own replies, which Flower reads.
        """
        if not popped:
            return None
        key, text = popped
        name = key.decode(errors="replace").removeprefix(self.global_keyprefix)
        queue = name.rsplit(self.sep, 1)[0]
        if queue not in self.gate.services.registry.queues:
            return popped
        signed = self.gate.services.read(text)
        return signed and (key, message.complete(queue, *signed).encode())

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Note a binding, where its table is none the log says so: no run needs it."""
        with self._logged_if_spoiled(exchange):
            super()._queue_bind(exchange, routing_key, pattern, queue)

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        """The bindings of an exchange; none where their table is none."""
        with self._logged_if_spoiled(exchange):
            table: list[tuple[str, ...]] = super().get_table(exchange)
            return table
        return []

    @contextmanager
    def _logged_if_spoiled(self, exchange: str) -> Iterator[None]:
        """Pass over a key of another type: raised, it would be taken for a lost connection, which
        Celery opens anew several times a second."""
        try:
            yield
        except redis.ResponseError as error:
            if not is_spoiled(error):
                raise
            log_spoiled(self.global_keyprefix + self.keyprefix_queue % exchange)

    def _handle_message(self, client: Any, response: Any) -> Any:
        read = super()._handle_message(client, response)
        data = read["data"]
        if isinstance(data, bytes) and CONTROL in read["channel"] and not is_question(data):
            self.gate.services.refuse("remote control that is not a question", None, None)
            read["data"] = None  # which kombu passes over
        return read


class Transport(kombu_redis.Transport):
    """kombu's transport with that channel."""

    Channel = Channel


class Connection(kombu_connection.Connection):
    """kombu's connection, which calls that transport by the name that others know: Flower finds
    its own client for the broker by it."""

    resolve_aliases: Any = MappingProxyType(
        {**kombu_connection.Connection.resolve_aliases, f"{__name__}:Transport": "redis"}
    )


class Amqp(AMQP):
    """Celery's, with that connection."""

    Connection = Connection


def is_question(text: bytes) -> bool:
    """Whether this is a message of Celery's remote control that asks for one of `LOOKING`."""
    if len(text) > MAX_CONTROL_BYTES:
        return False
    try:
        return _is_question(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _is_question(envelope: Any) -> bool:
    properties, headers = envelope["properties"], envelope["headers"]
    said = json.loads(base64.b64decode(envelope["body"], validate=True))
    reply_to = said.get("reply_to") or {"exchange": "", "routing_key": ""}
    return (
        (envelope["content-type"], envelope["content-encoding"]) == ("application/json", "utf-8")
        and isinstance(headers, dict)
        and "compression" not in headers
        and all(isinstance(headers.get(name, 0), int | float) for name in ("clock", "expires"))
        and properties["body_encoding"] == "base64"
        and isinstance(properties["delivery_tag"], str)
        and isinstance(properties.get("delivery_info"), dict)
        and said["method"] in LOOKING
        and isinstance(said.get("arguments") or {}, dict)
        and _are_texts(said.get("destination") or [])
        and _are_texts([reply_to["exchange"], reply_to["routing_key"], said.get("ticket") or ""])
        and not (said.get("pattern") or said.get("matcher"))
    )


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
