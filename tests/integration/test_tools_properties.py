"""The tools against a plain-dict model: any sequence of calls leaves what the model holds."""

from __future__ import annotations

import math
from uuid import uuid4

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from callboard import gt

RECORD_IDS = st.sampled_from(["a", "b", "0", "é", " x"])
KEYS = st.one_of(
    st.sampled_from(["a", "b", "0", "1", "_id", "data"]),
    st.text(min_size=1, max_size=5).filter(
        lambda key: not key.startswith("$") and "." not in key and "\0" not in key
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
DATA = st.dictionaries(KEYS, VALUES, max_size=4)


def same(left, right):
    """Equal as JSON: 1, 1.0 and True are three values, and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


class Merging(RuleBasedStateMachine):
    """One collection, written through the tools and, beside them, into a dict."""

    tools = None  # set by the test

    def __init__(self):
        super().__init__()
        self.coll = f"c{uuid4().hex}"
        self.model = {}

    @rule(record_id=RECORD_IDS, data=DATA)
    def create(self, record_id, data):
        result = self.tools.create(self.coll, data, record_id)
        assert result.data == {"recordId": record_id}
        self.model[record_id] = {**self.model.get(record_id, {}), **data}

    @rule(data=DATA)
    def create_without_id(self, data):
        record_id = self.tools.create(self.coll, data).unwrap()["recordId"]
        assert record_id not in self.model
        self.model[record_id] = data

    @rule(record_id=RECORD_IDS, patch=DATA)
    def update(self, record_id, patch):
        result = self.tools.update(self.coll, record_id, patch)
        assert result.success is (record_id in self.model)
        if record_id in self.model:
            self.model[record_id] = {**self.model[record_id], **patch}

    @rule(record_id=RECORD_IDS)
    def remove(self, record_id):
        result = self.tools.remove(self.coll, record_id)
        assert result.success is (self.model.pop(record_id, None) is not None)

    @rule(record_id=RECORD_IDS)
    def delete_where(self, record_id):
        later = {other for other in self.model if other.encode() > record_id.encode()}
        result = self.tools.delete_where(self.coll, {"recordId": gt(record_id)}, limit=500)
        assert result.data == {"deleted": len(later)}
        for other in later:
            del self.model[other]

    @rule(record_id=RECORD_IDS)
    def get(self, record_id):
        result = self.tools.get(self.coll, record_id)
        assert result.success is (record_id in self.model)
        if result.success:
            assert same(result.data["record"]["data"], self.model[record_id])

    @invariant()
    def query_answers_every_record(self):
        records = self.tools.query(self.coll).unwrap()["records"]
        assert [record["recordId"] for record in records] == sorted(
            self.model, key=lambda record_id: record_id.encode()
        )
        for record in records:
            assert same(record["data"], self.model[record["recordId"]])


def test_any_sequence_of_calls_leaves_what_a_dict_would_hold(tools):
    run_state_machine_as_test(
        type("Merging", (Merging,), {"tools": tools}),
        settings=settings(
            max_examples=25,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
