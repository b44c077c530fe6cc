"""The store: one durable client per process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pymongo import WriteConcern

from callboard.connections import mongodb
from callboard.settings import get_settings

FORKS = """
import os, warnings
warnings.simplefilter("error")
from callboard.connections import mongodb

assert mongodb.database().client is mongodb.database().client
mongodb.database().items.insert_one({"_id": "parent"})
child = os.fork()
if child == 0:
    mongodb.database().items.insert_one({"_id": "child"})
    mongodb.close_database()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert mongodb.database().items.count_documents({}) == 2
mongodb.close_database()
"""


@pytest.fixture
def environment(monkeypatch, mongodb_uri):
    given = {
        "MONGODB_URI": mongodb_uri,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SECRET_KEY": "s" * 32,
        "JWT_SECRET": "j" * 32,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield
    mongodb.close_database()
    get_settings.cache_clear()


@pytest.mark.usefixtures("environment")
def test_the_database_is_the_one_that_the_uri_names(database):
    assert mongodb.database().name == database.name


@pytest.mark.usefixtures("environment")
def test_writes_are_journaled_by_a_majority():
    assert mongodb.database().write_concern == WriteConcern("majority", j=True)


@pytest.mark.usefixtures("environment", "database")
def test_a_fork_opens_a_client_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
