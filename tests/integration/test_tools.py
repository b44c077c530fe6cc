"""The tools against a real server: the contract's table, line by line."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from callboard import all_of, exists, gt, gte, lt, lte, ne, one_of
from callboard.connections.mongodb import connect
from callboard.errors import DatabaseUnavailable
from callboard.sdk.collection import Collection
from worker.tools.indexes import create_indexes
from worker.tools.values import now

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def record_of(tools, coll, record_id):
    return tools.get(coll, record_id).unwrap()["record"]


def data_of(tools, coll, record_id):
    return record_of(tools, coll, record_id)["data"]


def ids(result):
    return [record["recordId"] for record in result.unwrap()["records"]]


def seed(tools, coll, rows):
    for record_id, data in rows.items():
        tools.create(coll, data, record_id).unwrap()


class TestCreate:
    def test_with_an_id_answers_that_id(self, tools):
        assert tools.create("items", {"a": 1}, "x").data == {"recordId": "x"}

    def test_the_record_has_the_whole_envelope(self, tools):
        tools.create("items", {"a": 1}, "x")
        record = record_of(tools, "items", "x")
        assert record == {
            "recordId": "x",
            "data": {"a": 1},
            "createdBy": "alice",
            "createdAt": record["createdAt"],
            "updatedBy": "alice",
            "updatedAt": record["createdAt"],
        }
        assert TIME.fullmatch(record["createdAt"])

    def test_merges_on_top_at_the_top_level(self, tools):
        tools.create("items", {"a": 1, "b": {"x": 1, "y": 2}}, "x")
        tools.create("items", {"b": {"z": 3}, "c": None}, "x")
        assert data_of(tools, "items", "x") == {"a": 1, "b": {"z": 3}, "c": None}

    def test_a_merge_keeps_who_created_the_record_and_when(self, make_tools):
        make_tools(user_id="alice").create("items", {"a": 1}, "x")
        before = record_of(make_tools(), "items", "x")
        make_tools(user_id="bob").create("items", {"a": 2}, "x")
        after = record_of(make_tools(), "items", "x")
        assert (after["createdBy"], after["updatedBy"]) == ("alice", "bob")
        assert after["createdAt"] == before["createdAt"] <= after["updatedAt"]

    def test_an_anonymous_writer_is_null(self, make_tools):
        make_tools(user_id=None).create("items", {}, "x")
        record = record_of(make_tools(), "items", "x")
        assert (record["createdBy"], record["updatedBy"]) == (None, None)

    def test_an_empty_object_stores_an_empty_record(self, tools):
        assert tools.create("items", {}, "x").success
        assert data_of(tools, "items", "x") == {}

    def test_an_empty_object_on_top_changes_no_field(self, tools):
        tools.create("items", {"a": 1}, "x")
        assert tools.create("items", {}, "x").success
        assert data_of(tools, "items", "x") == {"a": 1}

    @pytest.mark.parametrize("key", ["0", "00", "é", "a b", " ", "a$b", "[]", "_id", "data", "\n"])
    def test_any_safe_key_is_a_plain_field(self, tools, key):
        for value in (1, {"n": 2}):
            tools.create("items", {key: value}, "x").unwrap()
            assert data_of(tools, "items", "x") == {key: value}

    def test_without_an_id_each_create_makes_a_record(self, tools):
        made = {tools.create("items", {"n": n}).unwrap()["recordId"] for n in range(3)}
        assert len(made) == 3
        assert {data_of(tools, "items", record_id)["n"] for record_id in made} == {0, 1, 2}

    def test_a_rerun_without_an_id_leaves_one_record_and_others_edits(self, make_tools):
        first = make_tools(run_id="r1").create("items", {"n": 1}).unwrap()
        make_tools().update("items", first["recordId"], {"n": 2})
        again = make_tools(run_id="r1").create("items", {"n": 1}).unwrap()
        assert again == first
        assert ids(make_tools().query("items")) == [first["recordId"]]
        assert data_of(make_tools(), "items", first["recordId"]) == {"n": 2}

    def test_the_derived_id_depends_on_run_collection_and_ordinal(self, make_tools):
        tools = make_tools(run_id="r1")
        made = [tools.create(coll, {}).unwrap()["recordId"] for coll in ("a", "a", "b")]
        made.append(make_tools(run_id="r2").create("a", {}).unwrap()["recordId"])
        assert len(set(made)) == 4

    def test_eight_writers_of_disjoint_fields_lose_none(self, make_tools):
        def write(writer):
            tools = make_tools()
            for number in range(10):
                tools.create("items", {f"w{writer}_{number}": number}, "shared").unwrap()

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(data_of(make_tools(), "items", "shared")) == 80


class TestUpdateAndRemove:
    def test_update_patches_at_the_top_level(self, tools):
        tools.create("items", {"a": 1, "b": {"x": 1}}, "x")
        assert tools.update("items", "x", {"b": {"y": 2}}).data == {"recordId": "x"}
        assert data_of(tools, "items", "x") == {"a": 1, "b": {"y": 2}}

    def test_update_of_a_missing_record_fails_and_makes_none(self, tools):
        assert tools.update("items", "x", {"a": 1}).error == "Record not found"
        assert tools.get("items", "x").error == "Record not found"

    def test_an_empty_patch_of_an_existing_record_succeeds(self, tools):
        tools.create("items", {"a": 1}, "x")
        assert tools.update("items", "x", {}).success
        assert data_of(tools, "items", "x") == {"a": 1}

    def test_update_stamps_the_writer_and_keeps_the_creator(self, make_tools):
        make_tools(user_id="alice").create("items", {}, "x")
        make_tools(user_id="bob").update("items", "x", {"a": 1})
        record = record_of(make_tools(), "items", "x")
        assert (record["createdBy"], record["updatedBy"]) == ("alice", "bob")

    def test_remove(self, tools):
        tools.create("items", {}, "x")
        assert tools.remove("items", "x").data == {"recordId": "x"}
        assert tools.remove("items", "x").error == "Record not found"
        assert tools.get("items", "x").error == "Record not found"


ROWS = {
    "a": {"n": 1, "status": "new", "tags": ["x", "y"], "at": {"city": "Oslo"}},
    "b": {"n": 2, "status": "open", "tags": [], "at": {"city": "Rome"}},
    "c": {"n": 3, "status": None, "flag": True},
    "d": {"n": "3", "flag": 1},
}


class TestWhere:
    CASES = (
        ({}, "abcd"),
        ({"n": 1}, "a"),
        ({"n": 3}, "c"),
        ({"n": 3.0}, "c"),
        ({"n": "3"}, "d"),
        ({"tags": "x"}, "a"),
        ({"at.city": "Rome"}, "b"),
        ({"status": None}, "cd"),
        ({"flag": True}, "c"),
        ({"n": gt(1)}, "bc"),
        ({"n": gte(1)}, "abc"),
        ({"n": lt(2)}, "a"),
        ({"n": lte(2)}, "ab"),
        ({"n": all_of(gt(1), lt(3))}, "b"),
        ({"n": ne(1)}, "bcd"),
        ({"status": ne(None)}, "ab"),
        ({"n": one_of(1, "3")}, "ad"),
        ({"n": one_of()}, ""),
        ({"status": one_of("new", None)}, "acd"),
        ({"status": exists()}, "abc"),
        ({"status": exists(False)}, "d"),
        ({"n": gt(1), "status": "open"}, "b"),
        ({"recordId": "c"}, "c"),
        ({"recordId": gt("b")}, "cd"),
        ({"createdBy": "alice"}, "abcd"),
        ({"createdBy": None}, ""),
        ({"updatedBy": ne("alice")}, ""),
        ({"createdAt": lt(datetime(2020, 1, 1, tzinfo=UTC))}, ""),
        ({"createdAt": gt("2020-01-01T00:00:00Z"), "updatedAt": gt("2020-01-01")}, None),
    )

    @pytest.mark.parametrize(("where", "expected"), CASES, ids=repr)
    def test_selects(self, tools, where, expected):
        seed(tools, "items", ROWS)
        result = tools.query("items", where)
        if expected is None:
            assert "time zone" in result.error
        else:
            assert "".join(ids(result)) == expected

    def test_a_record_time_finds_its_record(self, tools):
        tools.create("items", {}, "x")
        assert ids(tools.query("items", {"createdAt": record_of(tools, "items", "x")["createdAt"]}))

    def test_a_time_in_data_compares_as_time_and_as_text(self, tools):
        noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        tools.create("items", {"at": noon}, "x")
        assert ids(tools.query("items", {"at": noon})) == ["x"]
        assert ids(tools.query("items", {"at": gt(noon - timedelta(seconds=1))})) == ["x"]
        assert ids(tools.query("items", {"at": "2026-01-01T10:00:00.000Z"})) == ["x"]


class TestQuery:
    def test_answers_records_count_and_no_cursor(self, tools):
        seed(tools, "items", {"a": {"n": 1}, "b": {"n": 2}})
        page = tools.query("items").unwrap()
        assert (page["count"], page["after"]) == (2, None)
        assert page["records"][0] == record_of(tools, "items", "a")

    def test_orders_by_any_field_and_breaks_ties_by_record_id(self, tools, eventually):
        for record_id, n in {"c": 1, "a": 2, "b": 1}.items():
            seed(tools, "items", {record_id: {"n": n}})
            made = now()
            eventually(lambda made=made: now() > made)  # each in a millisecond of its own
        assert ids(tools.query("items", order_by="n")) == ["b", "c", "a"]
        assert ids(tools.query("items", order_by="n", order_dir="desc")) == ["a", "c", "b"]
        assert ids(tools.query("items", order_by="recordId", order_dir="desc")) == ["c", "b", "a"]
        assert ids(tools.query("items", order_by="createdAt")) == ["c", "a", "b"]

    MIXED = (1, 1, 2.5, None, None, "a", "é", "", True, False, [], [1, 9], ["b", 0], {"k": 1}, -1)

    @pytest.mark.parametrize("order_dir", ["asc", "desc"])
    @pytest.mark.parametrize("order_by", ["v", "recordId", "createdAt", "in.v", None])
    @pytest.mark.parametrize("size", [1, 2, 7])
    def test_pages_hold_every_record_once_in_order(self, tools, order_by, order_dir, size):
        rows = {f"r{n:02}": {"v": v, "in": {"v": v}} for n, v in enumerate(self.MIXED)}
        del rows["r13"]  # an object: see the next test
        seed(tools, "items", {**rows, "missing": {}})
        whole = ids(tools.query("items", order_by=order_by, order_dir=order_dir))
        paged, after = [], None
        while True:
            page = tools.query(
                "items", order_by=order_by, order_dir=order_dir, limit=size, after=after
            ).unwrap()
            paged += [record["recordId"] for record in page["records"]]
            after = page["after"]
            if after is None:
                break
        assert paged == whole
        assert len(whole) == len(rows) + 1

    def test_a_page_cannot_end_on_an_object(self, tools):
        seed(tools, "items", {"a": {"v": {"k": 1}}, "b": {"v": {"k": 2}}})
        assert "order by another field" in tools.query("items", order_by="v", limit=1).error
        assert ids(tools.query("items", order_by="v", limit=2)) == ["a", "b"]

    def test_pages_stay_stable_when_records_come_and_go(self, tools):
        seed(tools, "items", {name: {"n": 1} for name in "bdfh"})
        first = tools.query("items", order_by="n", limit=2).unwrap()
        tools.create("items", {"n": 1}, "a")
        tools.remove("items", "d")
        assert ids(tools.query("items", order_by="n", limit=9, after=first["after"])) == ["f", "h"]

    def test_the_cursor_keeps_the_filter(self, tools):
        seed(tools, "items", {f"r{n}": {"n": n, "odd": n % 2} for n in range(8)})
        first = tools.query("items", {"odd": 1}, limit=2).unwrap()
        assert ids(tools.query("items", {"odd": 1}, limit=9, after=first["after"])) == ["r5", "r7"]

    def test_a_cursor_of_another_query_is_refused(self, tools):
        seed(tools, "items", {"a": {"n": 1}, "b": {"n": 2}})
        after = tools.query("items", order_by="n", limit=1).unwrap()["after"]
        for options in ({}, {"order_by": "m"}, {"order_by": "n", "order_dir": "desc"}):
            assert "not a cursor" in tools.query("items", after=after, **options).error
        assert "not a cursor" in tools.query("other", order_by="n", after=after).error

    def test_refuses_more_than_ten_thousand_without_a_limit(self, tools, database):
        database.items.insert_many({"_id": str(n), "data": {}} for n in range(10_001))
        assert re.search("limit.*after", tools.query("items").error)
        assert tools.query("items", limit=10_000).unwrap()["count"] == 10_000
        assert tools.query("items", {"recordId": ne("5")}).unwrap()["count"] == 10_000

    @pytest.mark.parametrize("limit", [0, -1, 10_001, True, "5", 1.5])
    def test_refuses_a_bad_limit(self, tools, limit):
        assert tools.query("items", limit=limit).error.startswith("limit: ")

    def test_refuses_a_bad_direction(self, tools):
        assert tools.query("items", order_dir="up").error.startswith("order_dir: ")


class TestDeleteWhere:
    def test_answers_the_number_really_deleted(self, tools):
        seed(tools, "items", {f"r{n}": {"odd": n % 2} for n in range(5)})
        assert tools.delete_where("items", {"odd": 1}).data == {"deleted": 2}
        assert tools.delete_where("items", {"odd": 1}).data == {"deleted": 0}
        assert ids(tools.query("items")) == ["r0", "r2", "r4"]

    def test_deletes_one_hundred_by_default_and_five_hundred_at_most(self, tools, database):
        database.items.insert_many({"_id": str(n), "data": {"k": 1}} for n in range(700))
        assert tools.delete_where("items", {"k": 1}).data == {"deleted": 100}
        assert tools.delete_where("items", {"k": 1}, limit=500).data == {"deleted": 500}
        assert tools.delete_where("items", {"k": 1}, limit=501).error.startswith("limit: ")
        assert database.items.count_documents({}) == 100

    @pytest.mark.parametrize("where", [{}, None])
    def test_refuses_an_empty_where(self, tools, where):
        tools.create("items", {}, "x")
        assert "at least one field" in tools.delete_where("items", where).error
        assert tools.get("items", "x").success


class TestRegisterUser:
    def test_upserts_the_callers_row(self, tools):
        user = tools.register_user(name="Alice", email="a@example.org").unwrap()["user"]
        assert user == record_of(tools, "users", "alice")
        assert user["data"] == {"name": "Alice", "email": "a@example.org"}
        again = tools.register_user(image_url="https://example.org/a.png").unwrap()["user"]
        assert again["data"] == {**user["data"], "imageUrl": "https://example.org/a.png"}
        assert again["createdAt"] == user["createdAt"]

    def test_takes_another_users_id(self, tools):
        assert tools.register_user("bob", name="Bob").unwrap()["user"]["recordId"] == "bob"

    def test_an_anonymous_caller_needs_an_id(self, make_tools):
        assert "user_id" in make_tools(user_id=None).register_user(name="X").error
        assert make_tools(user_id=None).register_user("bob").unwrap()["user"]["data"] == {}

    def test_refuses_what_is_no_text(self, tools):
        assert tools.register_user(email={"$ne": 1}).error == "email: must be text, not dict"


def test_integration_is_delegated(tools):
    assert tools.integration("a/b", {"x": 1}).data == {"endpoint": "a/b", "data": {"x": 1}}


class TestValues:
    def test_what_get_returns_is_json_and_can_be_written_back_unchanged(self, tools):
        data = {
            "time": datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC),
            "uuid": UUID(int=1),
            "decimal": Decimal("1.10"),
            "big": 2**63 - 1,
            "nested": [{"deep": [None, True, 0.5, "\0"]}],
            "tuple": (1, 2),
        }
        tools.create("items", data, "x").unwrap()
        stored = data_of(tools, "items", "x")
        assert stored == {
            "time": "2026-01-02T03:04:05.678Z",
            "uuid": "00000000-0000-0000-0000-000000000001",
            "decimal": "1.10",
            "big": 2**63 - 1,
            "nested": [{"deep": [None, True, 0.5, "\0"]}],
            "tuple": [1, 2],
        }
        assert json.loads(json.dumps(stored, allow_nan=False)) == stored
        tools.update("items", "x", stored).unwrap()
        assert data_of(tools, "items", "x") == stored

    def test_what_came_in_through_ctx_db_is_json_too(self, tools, database):
        data = {"t": datetime(2026, 1, 1, tzinfo=UTC), "b": b"\x00", "n": float("nan")}
        data["u"] = UUID(int=1)
        database.items.insert_one({"_id": "x", "data": data})
        assert data_of(tools, "items", "x") == {
            "t": "2026-01-01T00:00:00.000Z",
            "b": "AA==",
            "n": None,
            "u": "00000000-0000-0000-0000-000000000001",
        }

    def test_a_record_beyond_sixteen_megabytes_is_refused(self, tools):
        half = {"a": "x" * 9_000_000}
        assert tools.create("items", {**half, "b": "x" * 9_000_000}, "x").error.startswith(
            "Record too large"
        )
        tools.create("items", half, "x").unwrap()
        assert tools.update("items", "x", {"b": half}).error.startswith("Record too large")
        assert set(data_of(tools, "items", "x")) == {"a"}

    def test_the_deepest_data_that_is_allowed_can_be_stored(self, tools):
        def nested(levels):
            return {"k": nested(levels - 1)} if levels else 1

        tools.create("items", nested(64), "x").unwrap()
        assert data_of(tools, "items", "x") == nested(64)
        assert "deeper than 64" in tools.create("items", nested(65), "y").error


class TestUniqueness:
    @pytest.fixture(autouse=True)
    def unique(self, database):
        create_indexes(database, {"users": Collection(unique=[("email",)])})

    def test_a_second_record_with_the_value_is_a_duplicate(self, tools):
        tools.create("users", {"email": "a"}, "x").unwrap()
        duplicate = "Duplicate: another record has the same email"
        assert tools.create("users", {"email": "a"}, "y").error == duplicate
        assert tools.create("users", {"email": "a"}).error == duplicate
        assert tools.register_user("y", email="a").error == duplicate
        tools.create("users", {}, "y").unwrap()
        assert tools.update("users", "y", {"email": "a"}).error == duplicate

    def test_records_without_the_field_are_not_compared(self, tools):
        assert all(tools.create("users", {}, name).success for name in "abc")


class TestLostDatabase:
    @pytest.fixture
    def nowhere(self, face):
        """A database whose server is not there."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            uri = f"mongodb://127.0.0.1:{taken.getsockname()[1]}/none"
            with connect(uri) as client:
                if face.kind == "async":
                    face.uris[client] = uri
                yield client.get_default_database()

    CALLS = (
        lambda tools: tools.create("items", {}),
        lambda tools: tools.create("items", {}, "x"),
        lambda tools: tools.update("items", "x", {"a": 1}),
        lambda tools: tools.remove("items", "x"),
        lambda tools: tools.get("items", "x"),
        lambda tools: tools.query("items"),
        lambda tools: tools.delete_where("items", {"a": 1}),
        lambda tools: tools.register_user(),
    )

    @pytest.mark.parametrize("call", CALLS)
    def test_raises_within_the_time_that_is_left_and_is_remembered(self, make_tools, nowhere, call):
        started = time.monotonic()
        tools = make_tools(database=lambda: nowhere, deadline=started + 0.3)
        with pytest.raises(DatabaseUnavailable):
            call(tools)
        assert time.monotonic() - started < 10
        assert isinstance(tools.lost, DatabaseUnavailable)
        with pytest.raises(DatabaseUnavailable):
            tools.integration("a/b")

    def test_no_time_left_is_no_call_without_bound(self, make_tools):
        tools = make_tools(deadline=time.monotonic() - 1)
        with pytest.raises(DatabaseUnavailable):
            tools.get("items", "x")
