"""Packets: what the runs of one loop ask of the broker in the same moment goes in one packet.

A run costs the broker two commands. Sent one by one, each over a connection of its own, they cost
a loop more than all else that it does for the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from itertools import islice
from typing import Any

import redis.asyncio

from callboard.connections.redis import AsyncPipelinedConnection, guarded, pack
from callboard.runs.commands import Commands, ScriptArguments

__all__ = ["Packets"]

PART = 50  # commands that are made before others have the loop

Sent = tuple[Sequence[Any], bytes, "asyncio.Future[Any]"]
"""A command, as it goes over the wire, and who waits for its reply."""


class Packets:
    """Commands out, each answered by itself. ``commands``: knows the scripts."""

    def __init__(self, client: redis.asyncio.Redis, commands: Commands) -> None:
        self._redis = client
        self._connection = AsyncPipelinedConnection(client)
        self._commands = commands
        self._waiting: list[Sent] = []
        self._sender: asyncio.Task[None] | None = None

    async def script(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What the script answers. Raises `BrokerUnavailable`."""
        command = self._commands.command(name, keys, arguments)
        with guarded(name):
            try:
                return await self._call(command)
            except redis.exceptions.NoScriptError:  # of a server that was started since
                await self._load()
                return await self._call(command)

    async def scripts(self, name: str, calls: Callable[[], Iterable[ScriptArguments]]) -> list[Any]:
        """What the script answers to each, an exception where it failed.

        ``calls``: makes keys and arguments; again, for a server that was started since. What is
        made goes out a part at a time, and others have the loop between two parts.
        """
        answers = await self._all(name, calls())
        if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
            await self._load()
            answers = await self._all(name, calls())
        return answers

    async def _all(self, name: str, calls: Iterable[ScriptArguments]) -> list[Any]:
        answers, left = [], iter(calls)
        while part := [self._post(self._commands.command(name, *o)) for o in islice(left, PART)]:
            answers += part
            await asyncio.sleep(0)
        return await asyncio.gather(*answers, return_exceptions=True)

    async def command(self, *command: Any) -> Any:
        """What the broker answers. Raises `BrokerUnavailable`."""
        with guarded(str(command[0])):
            return await self._call(command)

    async def _load(self) -> None:
        for text in self._commands.texts:
            await self._call(["SCRIPT", "LOAD", text])

    async def _call(self, command: Sequence[Any]) -> Any:
        return await self._post(command)

    def _post(self, command: Sequence[Any]) -> asyncio.Future[Any]:
        packed = pack(command)  # one that cannot be sent fails here, and no other with it
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, packed, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), context=Context())  # of no run
        return answer

    async def _send(self) -> None:
        """Send what waits, and what comes meanwhile, until nothing does."""
        try:
            while self._waiting:
                packet, self._waiting = self._waiting, []
                await self._exchange(packet)
        finally:
            self._sender = None

    async def _exchange(self, packet: list[Sent]) -> None:
        try:
            replies = await self._connection.exchange([packed for _, packed, _ in packet])
        except (redis.RedisError, OSError):
            replies = await self._exchanged_again([command for command, _, _ in packet])
        for (_, _, answer), reply in zip(packet, replies, strict=True):
            if answer.done():
                continue  # nobody waits for it any more
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    async def _exchanged_again(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The connection was dead, or led to a server that is a replica by now."""
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            return [error] * len(commands)
        return replies
