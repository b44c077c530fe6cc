"""The servers of tests: the user's own, where REDIS_URL and MONGODB_URI name them, or embedded.

On a server of the user's, tests have a database of their own, which is gone afterwards: nothing
that was there is read, changed or removed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callboard.errors import ConfigurationError
from callboard.stack.env_file import read_env_file
from callboard.stack.given import given_mongodb, given_redis

__all__ = ["named_servers", "own_database", "own_redis", "with_database"]

SERVERS = ("REDIS_URL", "MONGODB_URI")
_CLAIM = "callboard:taken-by-tests"
_DATABASES = 16  # that a Redis server has, unless it is told otherwise


def named_servers(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """REDIS_URL and MONGODB_URI as far as the environment, or ``.env`` in the folder, has them."""
    given = {**read_env_file(folder / ".env"), **{n: v for n, v in environment.items() if v}}
    return {name: given[name] for name in SERVERS if name in given}


@contextmanager
def own_database(uri: str) -> Iterator[str]:
    """A MONGODB_URI that names a database of this test session's own, dropped at the end.

    Raises `ServiceUnavailable` where the server does not answer, or the user may not write there.
    """
    import pymongo

    own = with_database(uri, f"callboard_test_{uuid.uuid4().hex}")
    given_mongodb(own).wait()
    try:
        yield own
    finally:
        with pymongo.MongoClient[dict[str, Any]](own) as client:
            client.drop_database(client.get_default_database().name)


def with_database(uri: str, name: str) -> str:
    """``uri`` with another database; a password is still looked up in the one that it named."""
    form = re.fullmatch(r"(?P<server>[^/]+//[^/]+)/(?P<database>[^?]*)\??(?P<query>.*)", uri)
    if form is None:
        raise ConfigurationError("MONGODB_URI: must look like mongodb://host:port/database")
    options = [form["query"]] if form["query"] else []
    asks_itself = "@" not in form["server"] or form["server"].startswith("mongodb+srv:")
    if not asks_itself and "authsource=" not in form["query"].lower():
        options.append(f"authSource={form['database']}")
    return f"{form['server']}/{name}" + (f"?{'&'.join(options)}" if options else "")


@contextmanager
def own_redis(url: str) -> Iterator[str]:
    """A REDIS_URL that names an empty database of the server, emptied at the end.

    Raises `ServiceUnavailable` where the server does not answer, `ConfigurationError` where none
    of its databases is empty.
    """
    import redis

    from callboard.connections.redis_url import RedisUrl

    given_redis(url).wait()
    options = RedisUrl.parse(url).client_options()
    for number in range(_DATABASES):
        pool = redis.ConnectionPool(**{**options, "db": number})
        client = redis.Redis(connection_pool=pool)
        try:
            if not _claimed(client):
                continue
            try:
                yield _with_number(url, number)
            finally:
                client.flushdb()
            return
        finally:
            pool.disconnect()
    raise ConfigurationError(
        f"REDIS_URL: none of the server's {_DATABASES} databases is empty, and tests take no "
        f"other. What a test session that was killed left behind, FLUSHDB removes."
    )


def _claimed(client: Any) -> bool:
    """Take an empty database; False for one that holds anything, or that does not exist."""
    import redis

    try:
        return client.dbsize() == 0 and bool(client.set(_CLAIM, "", nx=True))
    except redis.ResponseError:
        return False


def _with_number(url: str, number: int) -> str:
    server, _, query = url.partition("?")
    scheme, _, rest = server.partition("://")
    options = [option for option in query.split("&") if option and not option.startswith("db=")]
    return f"{scheme}://{rest.partition('/')[0]}/{number}" + (
        f"?{'&'.join(options)}" if options else ""
    )
