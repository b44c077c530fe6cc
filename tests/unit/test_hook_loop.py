"""Async hooks around plain handlers, where a signal interrupts them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from worker.hooks.hook_loop import HookLoop


class Stopped(KeyboardInterrupt):
    """As a signal raises it: through the loop."""


def interrupt() -> None:
    raise Stopped


@pytest.fixture
def hook_loop() -> Iterator[HookLoop]:
    made = HookLoop()
    yield made
    made.close()


async def waits(ctx: Any, call_next: Any) -> Any:
    asyncio.get_running_loop().call_soon(interrupt)
    await asyncio.sleep(60)


async def goes_on(ctx: Any, call_next: Any) -> Any:
    try:
        return await waits(ctx, call_next)
    except asyncio.CancelledError:
        return await call_next()


async def ends_otherwise(ctx: Any, call_next: Any) -> Any:
    try:
        return await waits(ctx, call_next)
    finally:
        raise ValueError("at the end")


@pytest.mark.parametrize("hook", [waits, goes_on, ends_otherwise])
def test_a_stop_is_seen_as_itself(hook_loop: HookLoop, hook: Any) -> None:
    called: list[Any] = []
    with pytest.raises(Stopped):
        hook_loop.around(hook, "ctx", called.append)
    assert not called
    assert hook_loop.run(asyncio.sleep(0, "still good")) == "still good"
