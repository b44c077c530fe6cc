"""Names: what may name a collection, a record and a field."""

from __future__ import annotations

from enum import StrEnum

import pytest

from callboard.errors import InvalidData
from callboard.sdk.names import (
    collection_name,
    data_key,
    field_path,
    record_id,
    signal_name,
)


class Coll(StrEnum):
    USERS = "users"


@pytest.mark.parametrize("name", ["users", "U", "a" * 64, "a_b-c9", "mysystem", Coll.USERS])
def test_collections(name):
    assert type(collection_name(name)) is str


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "9a", "_runs", "system", "system.users", "a.b", "a$", "é", "a\n", None]
)
def test_what_names_no_collection(name):
    with pytest.raises(InvalidData, match="Invalid collection"):
        collection_name(name)


@pytest.mark.parametrize("name", ["x", "0", " ", "a.b", "a$b", "é", "\U0001f600", "a" * 255])
def test_record_ids(name):
    assert record_id(name) == name


@pytest.mark.parametrize(
    "name", ["", "a" * 256, "$a", "a\0", "\t", "\x7f", "\x9f", "\ud800", 1, None, {"$ne": 1}]
)
def test_what_is_no_record_id(name):
    with pytest.raises(InvalidData, match="Invalid record id"):
        record_id(name)


@pytest.mark.parametrize("name", ["approve", "0", "A" * 64, "order-1_a.b", Coll.USERS])
def test_signals(name):
    assert type(signal_name(name)) is str


@pytest.mark.parametrize(
    "name", ["", "a" * 65, ".", "..", "-a", "_a", "a/b", "a b", "a?", "a%2F", "é", "a\n", None, 1]
)
def test_what_names_no_signal(name):
    with pytest.raises(InvalidData, match="Invalid signal"):
        signal_name(name)


@pytest.mark.parametrize("key", ["a", "0", " ", "a$", "é", "\n", "_id", "data"])
def test_data_keys(key):
    assert data_key(key, "data") == key


@pytest.mark.parametrize("key", ["", "$", "$set", "a.b", ".", "a\0", "\udc00", 1, None, b"a"])
def test_what_is_no_data_key(key):
    with pytest.raises(InvalidData, match=r"data\.here: invalid key"):
        data_key(key, "data.here")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("recordId", "_id"),
        ("createdBy", "createdBy"),
        ("updatedAt", "updatedAt"),
        ("_id", "data._id"),
        ("data", "data.data"),
        ("at.city", "data.at.city"),
        ("createdBy.x", "data.createdBy.x"),
        ("tags.0", "data.tags.0"),
    ],
)
def test_fields_lie_in_the_envelope_or_in_data(key, path):
    assert field_path(key, "where") == path


@pytest.mark.parametrize(
    "key", ["", ".", "a.", ".a", "a..b", "$a", "a.$b", "a.$", "\0", ".".join("a" * 65), 1, None]
)
def test_what_is_no_field(key):
    with pytest.raises(InvalidData, match="where: invalid field"):
        field_path(key, "where")


def test_a_message_shows_a_refused_name_shortened():
    with pytest.raises(InvalidData) as error:
        record_id("$" + "x" * 100_000)
    assert len(str(error.value)) < 300
