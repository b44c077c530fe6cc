"""Hostile names and values in every position: refused, or kept as plain values; no effect."""

from __future__ import annotations

import base64
import json

import pytest

MONGODB_SYNTAX = """
$where $expr $function $accumulator $regex $options $gt $gte $lt $lte $ne $eq $in $nin $exists
$type $mod $text $search $all $elemMatch $size $not $nor $or $and $jsonSchema $comment $rand
$geoWithin $geoIntersects $near $nearSphere $bitsAllSet $bitsAnyClear $set $unset $inc $mul $min
$max $rename $setOnInsert $currentDate $push $pull $pop $addToSet $pullAll $each $slice $sort
$position $bit $[] $[x] $ $$ $$ROOT $$NOW $$CURRENT $lookup $out $merge $unionWith $match $project
$group $replaceRoot $replaceWith $literal $meta $natural $query $orderby $hint $ref $id $db $oid
$date $binary $code $scope $numberLong $uuid $undefined $minKey $maxKey
"""
OPERATORS = MONGODB_SYNTAX.split()

HOSTILE_KEYS = [
    *OPERATORS,
    *(f"{operator}.x" for operator in OPERATORS[:20]),
    *(f"x.{operator}" for operator in OPERATORS[:40]),
    *(f"data.{operator}" for operator in OPERATORS[:10]),
    *("", ".", "..", "a.", ".a", "a..b", "\0", "a\0b", "\0$set", "$\0", "a.\0"),
    *("\ud800", "a\udfffb", "x.\ud800", "data.", ".data", "$data"),
    *(None, 1, True, 1.5, b"x", ("a",), object()),
]

HOSTILE_VALUES = [
    *({operator: 1} for operator in OPERATORS),
    *({operator: ""} for operator in OPERATORS[:20]),
    *([{operator: 1}] for operator in OPERATORS[:20]),
    *({"x": {operator: 1}} for operator in OPERATORS[:20]),
    {"$where": "sleep(5000) || true"},
    {"$expr": {"$function": {"body": "function(){}", "args": [], "lang": "js"}}},
    {"$regex": ".*", "$options": "s"},
    {"$gt": ""},
    {"$ne": None},
    {"$or": [{}, {"a": 1}]},
]

HOSTILE_TEXTS = [
    *OPERATORS,
    *("'; return true; //", "' || '1'=='1", '", "$where": "1', "{$ne: null}", '{"$gt": ""}'),
    *("this.n == 1", "$$ROOT.data", "/.*/", ".*", "%", "*", "../users", "users\0", "\r\n", "a\tb"),
]

HOSTILE_COLLECTIONS = [
    *("", " ", "users ", " users", "system", "system.users", "system_js", "systemx", "$cmd"),
    *("a.b", "users.$cmd", "_markers", "_runs", "_x", "1a", "-a", "a" * 65, "usérs", "a b"),
    *("a$b", "users\0", "users\n", "../users", "admin.users", "a/b", "a*", "\uff41"),
    *(None, 1, True, ["users"], {"$ne": 1}, b"users", object()),
    *OPERATORS,
]

HOSTILE_RECORD_IDS = [
    *("", "x" * 256, "\0", "a\0", "\n", "a\x7f", "\x85", "\ud800", "$", "$ne", "$x"),
    *(1, True, 1.5, ["x"], ("x",), {"$ne": None}, {"$gt": ""}, {}, b"x", object()),
    *OPERATORS,
]

CANARY = {"secret": 1, "n": 5, "tags": ["x"], "in": {"k": "v"}}


def test_the_corpus_is_large():
    corpora = (HOSTILE_KEYS, HOSTILE_VALUES, HOSTILE_TEXTS, HOSTILE_COLLECTIONS)
    assert sum(map(len, corpora)) + len(HOSTILE_RECORD_IDS) >= 200


@pytest.fixture
def untouched(tools, database):
    """Records that must be the same afterwards, in a database that holds nothing else."""
    for coll in ("users", "items"):
        tools.create(coll, CANARY, "canary").unwrap()

    def snapshot():
        names = sorted(database.list_collection_names())
        return {name: list(database[name].find().sort("_id", 1)) for name in names}

    before = snapshot()
    yield
    assert snapshot() == before


def refused(result):
    """A failure with a text that is short and tells nothing of the database."""
    assert not result.success, result
    assert len(result.error) <= 500
    assert "Refused by the database" not in result.error
    result.error.encode()


@pytest.mark.usefixtures("untouched")
class TestNames:
    def test_collections(self, tools):
        for coll in HOSTILE_COLLECTIONS:
            refused(tools.create(coll, {}))
            refused(tools.create(coll, {}, "x"))
            refused(tools.update(coll, "canary", {"n": 0}))
            refused(tools.remove(coll, "canary"))
            refused(tools.get(coll, "canary"))
            refused(tools.query(coll))
            refused(tools.delete_where(coll, {"n": 5}))

    def test_record_ids(self, tools):
        for record_id in HOSTILE_RECORD_IDS:
            refused(tools.create("items", {}, record_id))
            refused(tools.update("items", record_id, {"n": 0}))
            refused(tools.remove("items", record_id))
            refused(tools.get("items", record_id))
            refused(tools.register_user(record_id, name="x"))

    def test_data_and_patch_keys_at_every_depth(self, tools):
        for key in HOSTILE_KEYS:
            for data in ({key: 1}, {"a": {key: 1}}, {"a": [{"b": [{key: 1}]}]}):
                refused(tools.create("items", data))
                refused(tools.create("items", data, "canary"))
                refused(tools.update("items", "canary", data))

    def test_where_and_order_by_fields(self, tools):
        for key in HOSTILE_KEYS:
            if key is not None:
                refused(tools.query("items", order_by=key))
            refused(tools.query("items", {key: 1}))
            refused(tools.delete_where("items", {key: 5}))

    def test_a_data_field_cannot_reach_the_envelope(self, tools):
        for field in ("_id", "data", "data.secret", "_id.x", "recordId.x", "createdBy.x"):
            for value in ("canary", "alice", 1):
                assert tools.query("items", {field: value}).unwrap()["records"] == []
                assert tools.delete_where("items", {field: value}).data == {"deleted": 0}


@pytest.mark.usefixtures("untouched")
class TestValues:
    def test_a_json_object_or_list_is_no_condition(self, tools):
        for value in HOSTILE_VALUES:
            for field in ("n", "in.k", "recordId", "createdBy", "createdAt", "tags"):
                refused(tools.query("items", {field: value}))
                refused(tools.delete_where("items", {field: value}))

    def test_a_json_object_as_data_is_refused_where_it_holds_an_operator(self, tools):
        for value in HOSTILE_VALUES:
            refused(tools.create("items", {"a": value}, "canary"))
            refused(tools.update("items", "canary", {"a": value}))
            refused(tools.register_user("canary", name=value))

    def test_text_matches_only_itself(self, tools):
        for text in HOSTILE_TEXTS:
            for field in ("n", "in.k", "recordId", "createdBy", "secret"):
                assert tools.query("items", {field: text}).unwrap()["records"] == []
                assert tools.delete_where("items", {field: text}).data == {"deleted": 0}
            refused(tools.query("items", {"createdAt": text}))

    def test_numbers_are_no_limits_and_objects_no_arguments(self, tools):
        for value in (*HOSTILE_VALUES[:30], *HOSTILE_TEXTS[:30]):
            refused(tools.query("items", limit=value))
            refused(tools.query("items", order_dir=value))
            refused(tools.query("items", order_by=value))
            refused(tools.query("items", value))
            refused(tools.delete_where("items", {"n": 5}, limit=value))
            refused(tools.delete_where("items", value))


def cursor_of(*position):
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


@pytest.mark.usefixtures("untouched")
class TestCursors:
    def test_text_that_is_no_cursor(self, tools):
        deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
        for after in (*HOSTILE_TEXTS, "", "é", "\ud800", "====", "e30", deep, 1, {}, [], b"e30"):
            refused(tools.query("items", order_by="n", after=after))

    def test_a_forged_value_stays_a_value(self, tools):
        for value in (*HOSTILE_VALUES, float("nan"), 2**70, [], {}):
            for kind in ("null", "number", "text", "object", "list", "time", "empty", "x", 1, []):
                position = ("items", "data.n", False, kind, value, "a")
                refused(tools.query("items", order_by="n", after=cursor_of(*position)))

    def test_a_forged_field_collection_or_id_is_refused(self, tools):
        good = ("items", "data.n", False, "number", 0, "a")
        assert tools.query("items", order_by="n", after=cursor_of(*good)).unwrap()["count"] == 1
        for index in (0, 1, 2):
            for value in ("users", "$where", "data.$where", "_id", {"$ne": 1}, None):
                forged = (*good[:index], value, *good[index + 1 :])
                refused(tools.query("items", order_by="n", after=cursor_of(*forged)))
        for record_id in (*OPERATORS, {"$gt": ""}, None, 1, "\0", ""):
            refused(tools.query("items", order_by="n", after=cursor_of(*good[:5], record_id)))

    def test_a_cursor_of_another_length_is_refused(self, tools):
        for position in ((), ("items",), ("items", "data.n", False, "number", 0, "a", "b")):
            refused(tools.query("items", order_by="n", after=cursor_of(*position)))
