"""The store: one durable client per process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from faces import LoopThread
from pymongo import WriteConcern

from api import create_app
from callboard.connections.mongodb import AsyncStore, Store
from callboard.registry import Registry
from callboard.settings import Settings

FORKS = """
import os, sys, warnings
warnings.simplefilter("error")
from callboard.connections.mongodb import AsyncStore, Store

store = Store(sys.argv[1])
assert store.database().client is store.database().client
store.database().items.insert_one({"_id": "parent"})
child = os.fork()
if child == 0:
    store.database().items.insert_one({"_id": "child"})
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store.database().items.count_documents({}) == 2
store.close()
"""


@pytest.fixture
def store(mongodb_uri):
    store = Store(mongodb_uri)
    yield store
    store.close()


def test_the_database_is_the_one_that_the_uri_names(store, database):
    assert store.database().name == database.name


def test_writes_are_journaled_by_a_majority(store):
    assert store.database().write_concern == WriteConcern("majority", j=True)


def test_a_closed_client_is_replaced(store, database):
    store.database().client.close()
    assert store.database().items.count_documents({}) == 0


def test_that_of_an_event_loop_is_as_durable_and_as_hard_to_lose(
    mongodb_uri: str, loop_thread: LoopThread, database
) -> None:
    async def look() -> tuple[object, str, int]:
        store = AsyncStore(mongodb_uri)
        concern = store.database().write_concern
        await store.database().client.close()  # by a handler: the next one does not notice
        await store.database().items.insert_one({"_id": 1})
        found = await store.database().items.count_documents({})
        name = store.database().name
        await store.close()
        return concern, name, found

    assert loop_thread.run(look()) == (WriteConcern("majority", j=True), database.name, 1)


@pytest.mark.usefixtures("database")
def test_each_application_has_the_database_of_its_own_settings(variables, make_token, monkeypatch):
    """Not that of the environment."""
    monkeypatch.setenv("MONGODB_URI", "mongodb://127.0.0.1:1/elsewhere")
    app = create_app(Settings(**variables), Registry(actions={}))
    owner = {"Authorization": f"Bearer {make_token('owner')}"}
    assert app.test_client().get("/api/runs", headers=owner).status_code == 200
    services = app.extensions["callboard"]
    assert services.store.database().name in variables["MONGODB_URI"]
    services.close()


@pytest.mark.usefixtures("database")
def test_a_fork_opens_a_client_of_its_own(mongodb_uri):
    done = subprocess.run(
        [sys.executable, "-c", FORKS, mongodb_uri], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
