"""The database's client in a loop: it is opened by one run and serves all."""

from __future__ import annotations

import asyncio
from typing import Any

from callboard import ok
from callboard.connections.mongodb import AsyncStore
from callboard.sdk.action import action
from worker.loop.running import CLIENTS, Running, make_task


@action
async def first(ctx: Any) -> Any:
    return ok()


def test_what_watches_the_database_outlives_the_run_that_needed_it_first(mongodb_uri: str) -> None:
    """Without it, a client that lost its server would never find it again."""

    async def use(store: AsyncStore) -> None:
        await store.database().command("ping")
        while "pymongo_server_rtt_task" not in watching():  # the monitor's long question is out
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def run() -> None:
        store = AsyncStore(mongodb_uri)
        await Running("a run", first, 1).handle(use(store))
        for _ in range(10):  # what was canceled has ended by then
            await asyncio.sleep(0)
        assert "pymongo_server_monitor_task" in watching()
        await store.close()

    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(make_task)
        runner.run(run())


def watching() -> set[str]:
    """The names of the tasks that clients have for themselves."""
    names = (task.get_name() for task in asyncio.all_tasks())
    return {name for name in names if name.startswith(CLIENTS)}
