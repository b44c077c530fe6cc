"""DBOS Transact over SQLite, behind FastAPI: the route runs the workflow in a thread."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from dbos import DBOS
from fastapi import FastAPI

from benchmarks.jobs import DONE

STEPS = 10
MANY = 200

DBOS(
    config={
        "name": "peer",
        "system_database_url": os.environ["DBOS_DATABASE"],
        "log_level": "WARNING",
    }
)


@DBOS.step()
def nothing(number: int) -> int:
    return number


@DBOS.workflow()
def ten_steps() -> str:
    for number in range(STEPS):
        nothing(number)
    return DONE


@DBOS.workflow()
def one_step() -> float:
    started = monotonic()
    for number in range(MANY):
        nothing(number)
    return (monotonic() - started) / MANY


@asynccontextmanager
async def _launched(app: FastAPI) -> AsyncIterator[None]:
    DBOS.launch()
    yield
    DBOS.destroy()


web = FastAPI(lifespan=_launched)


@web.post("/tenSteps")
def call_ten_steps() -> dict[str, object]:
    return {"success": True, "data": ten_steps()}


@web.post("/oneStep")
def call_one_step() -> dict[str, object]:
    return {"success": True, "data": one_step()}
