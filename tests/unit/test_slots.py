"""The slots of a loop process: many runs at once, seen by its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from forked import forked

from worker.lease.slots import Slots

SIZE = 5
RUNS = [str(uuid4()) for _ in range(SIZE)]


@pytest.fixture
def slots() -> Slots:
    return Slots(["first", "second"], SIZE)


@contextmanager
def process(slots: Slots, does: Callable[[], object]) -> Iterator[int]:
    """A forked process that does this and waits; its id. Killed with the block."""
    with forked(does) as pid:
        slots.pid = pid
        yield pid


def fill(slots: Slots) -> None:
    for run_id in RUNS:
        slots.take(run_id, "second")


def test_the_parent_sees_all_that_is_in_hand(slots: Slots) -> None:
    with process(slots, lambda: fill(slots)) as pid:
        found = slots.all()
        assert sorted(taken.run_id for taken in found) == sorted(RUNS)
        assert {(taken.pid, taken.action) for taken in found} == {(pid, "second")}
        assert sorted(taken.number for taken in found) == list(range(1, SIZE + 1))
        assert all(map(slots.has, found))


def test_a_slot_is_used_again_under_another_number(slots: Slots) -> None:
    def does() -> None:
        fill(slots)
        slots.let_go(2)
        slots.take(RUNS[0], "first")

    with process(slots, does):
        numbers = sorted(taken.number for taken in slots.all())
        assert numbers == [1, 3, 4, 5, SIZE + 1]


def test_there_is_no_room_beyond_its_size(slots: Slots) -> None:
    assert slots.free == SIZE
    fill(slots)
    assert (slots.free, len(slots.left())) == (0, SIZE)
    slots.let_go(3)
    assert (slots.free, len(slots.left())) == (1, SIZE - 1)


def test_what_a_dead_process_had_in_hand_is_left_until_it_is_cleared(slots: Slots) -> None:
    with process(slots, lambda: fill(slots)):
        pass
    assert slots.all() == []
    assert len(slots.left()) == SIZE
    slots.clear()
    assert slots.left() == []
    with process(slots, lambda: slots.take(RUNS[0], "first")):
        assert [taken.action for taken in slots.all()] == ["first"]


def test_a_process_is_asked_to_stop_one_run(slots: Slots) -> None:
    fill(slots)
    slots.pid = os.getpid()
    wanted = slots.all()[2]
    assert slots.to_stop() == []
    slots.request_stop(wanted)
    assert slots.to_stop() == [wanted.number]
    slots.let_go(wanted.number)
    slots.take(RUNS[0], "first")  # in the same slot
    assert slots.to_stop() == []
