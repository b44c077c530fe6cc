"""The ids of children."""

from __future__ import annotations

from uuid import uuid4

from callboard.runs.children import group_run, group_runs


def test_the_runs_of_a_group_have_the_ids_that_each_has_by_itself() -> None:
    group = str(uuid4())
    assert group_runs(group, 120) == [group_run(group, number) for number in range(120)]
    assert group_runs(group, 0) == []
