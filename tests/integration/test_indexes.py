"""Indexes: what ``COLLECTIONS`` declares is there after the worker's start."""

from __future__ import annotations

import pytest

from callboard.errors import ConfigurationError
from callboard.sdk.collection import Collection
from worker.tools.indexes import create_indexes
from worker.tools.transaction import MARKER_TTL, MARKERS


def keys_of(database, coll):
    return sorted(list(index["key"]) for index in database[coll].list_indexes())


def test_makes_what_is_declared_and_may_do_it_again(database):
    declared = {
        "users": Collection(unique=[("email",)], indexes=[("team", "createdAt")]),
        "items": Collection(indexes=[["at.city"]]),
    }
    for _ in range(2):
        create_indexes(database, declared)
    assert keys_of(database, "users") == [["_id"], ["data.email"], ["data.team", "createdAt"]]
    assert keys_of(database, "items") == [["_id"], ["data.at.city"]]


def test_markers_expire_after_their_time(database):
    create_indexes(database, {})
    [index] = [i for i in database[MARKERS].list_indexes() if "expireAfterSeconds" in i]
    assert (list(index["key"]), index["expireAfterSeconds"]) == (["createdAt"], MARKER_TTL)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("users", {"unique": ["email"]}, "must be a Collection"),
        ("_runs", Collection(), "Invalid collection"),
        (1, Collection(), "Invalid collection"),
        ("users", Collection(unique="email"), "unique: must be a list"),
        ("users", Collection(unique=["email"]), "unique: 'email' must be a tuple"),
        ("users", Collection(indexes=[()]), r"indexes: \(\) must be a tuple"),
        ("users", Collection(indexes=[("a..b",)]), "invalid field 'a..b'"),
        ("users", Collection(indexes=[("$x",)]), "invalid field"),
        ("users", Collection(indexes=[(1,)]), "invalid field"),
        ("users", Collection(indexes=[("a", "a")]), "a field twice"),
        ("users", Collection(indexes=[("a",)], unique=[("a",)]), "come twice"),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_made(database, name, value, told):
    with pytest.raises(ConfigurationError, match=told) as error:
        create_indexes(database, {"good": Collection(indexes=[("a",)]), name: value})
    assert repr(name) in str(error.value)
    assert database.list_collection_names() == []


def test_records_that_violate_uniqueness_are_named_as_the_cause(database):
    database.users.insert_many({"_id": name, "data": {"email": "same"}} for name in "ab")
    with pytest.raises(ConfigurationError, match=r"COLLECTIONS\['users'\].*already share a value"):
        create_indexes(database, {"users": Collection(unique=[("email",)])})


def test_an_index_that_turned_unique_is_told(database):
    create_indexes(database, {"users": Collection(indexes=[("email",)])})
    with pytest.raises(ConfigurationError, match=r"COLLECTIONS\['users'\]: unique"):
        create_indexes(database, {"users": Collection(unique=[("email",)])})
