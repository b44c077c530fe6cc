"""The table in shared memory: what a child writes, its parent reads."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from forked import forked

from callboard import ActionContext, ActionResult, action, ok
from worker.lease.hands import ROWS, Hands
from worker.lease.held import HeldRuns
from worker.lease.table import ROW_WORDS

RUN = str(uuid4())


@pytest.fixture
def hands() -> Hands:
    return Hands(["first", "second"])


@contextmanager
def child(hands: Hands, does: Callable[[], None]) -> Iterator[int]:
    """A forked process that does this and waits; its id. Killed with the block."""
    hands.pick_row()

    def begin() -> None:
        hands.begin()
        does()

    with forked(begin) as pid:
        yield pid


def test_the_parent_sees_what_a_child_has_in_hand(hands: Hands) -> None:
    before = time.monotonic()
    with child(hands, lambda: hands.take(RUN, "second")) as pid:
        (taken,) = hands.all()
        assert (taken.pid, taken.number, taken.action, taken.run_id) == (pid, 1, "second", RUN)
        assert before <= taken.since <= time.monotonic()


def test_a_run_that_was_let_go_is_in_no_hand(hands: Hands) -> None:
    def does() -> None:
        hands.take(RUN, "first")
        hands.let_go()

    with child(hands, does) as pid:
        assert hands.all() == []
        assert hands.of(pid) is None


def test_time_that_was_over_before_is_the_runs_and_not_the_next_ones(hands: Hands) -> None:
    def does() -> None:
        hands.take(RUN, "first")
        hands.note_spent(20.0)

    def then() -> None:
        does()
        hands.take(RUN, "first")

    @action(name="first", timeout=30)
    def first(ctx: ActionContext) -> ActionResult:
        return ok()

    for what, left in ((does, 10), (then, 30)):
        held = HeldRuns(hands, [], {"first": first}, lambda pid, number: "", lease=5.0)
        with child(hands, what):
            [one] = held.all()
            assert round(one.out_at - one.hand.since) == left
            assert round(one.stop_at - one.out_at) == round(held._patience)
            assert one.lapses_at - one.hand.since == 5.0
            assert held.all() == [one]


def test_the_same_run_taken_twice_is_two(hands: Hands) -> None:
    def does() -> None:
        for _ in range(2):
            hands.take(RUN, "first")

    with child(hands, does):
        assert [taken.number for taken in hands.all()] == [2]


def test_what_a_dead_child_had_in_hand_is_known_though_it_is_not_in_hand(hands: Hands) -> None:
    with child(hands, lambda: hands.take(RUN, "first")) as pid:
        pass
    assert hands.all() == []
    taken = hands.of(pid)
    assert taken is not None
    assert taken.run_id == RUN


def test_the_next_child_does_not_write_over_it(hands: Hands) -> None:
    with child(hands, lambda: hands.take(RUN, "first")) as dead:
        pass
    with child(hands, lambda: hands.take(RUN, "second")) as pid:
        assert [taken.pid for taken in hands.all()] == [pid]
        assert hands.of(dead) is not None


def test_rows_are_used_again_when_their_children_are_gone(hands: Hands) -> None:
    for _ in range(ROWS + 1):
        hands.pick_row()
    with child(hands, lambda: hands.take(RUN, "first")):
        living = hands.all()
        for _ in range(ROWS):  # once around: the row of the living child is passed over
            hands.pick_row()
        hands.begin()
        assert hands.all() == living


def test_a_stop_is_asked_of_one_run_only(hands: Hands) -> None:
    hands.begin()
    hands.take(RUN, "first")
    assert not hands.stop_is_asked()
    hands.ask_to_stop(hands.all()[0])
    assert hands.stop_is_asked()
    hands.take(RUN, "first")
    assert not hands.stop_is_asked()


def test_a_stop_that_comes_too_late_is_for_nobody(hands: Hands) -> None:
    hands.begin()
    hands.take(RUN, "first")
    earlier = hands.all()[0]
    hands.take(RUN, "second")
    hands.ask_to_stop(earlier)
    assert not hands.stop_is_asked()


def test_closing_reaches_children_that_live_already(hands: Hands) -> None:
    assert not hands.closed

    def does() -> None:
        deadline = time.monotonic() + 60
        while not hands.closed and time.monotonic() < deadline:
            pass
        hands.take(RUN, "second" if hands.closed else "first")

    hands.pick_row()
    pid = os.fork()
    if pid == 0:
        hands.begin()
        does()
        os._exit(0)
    hands.close()
    os.waitpid(pid, 0)
    taken = hands.of(pid)
    assert taken is not None
    assert taken.action == "second"


def test_who_reads_while_children_write_reads_one_run_or_none(hands: Hands) -> None:
    """More writers than cores, so that some are stopped by the kernel in the middle of a row."""
    runs = {number: (f"{number:036d}", ("first", "second")[number % 2]) for number in range(1, 500)}
    writers = []
    for _ in range(4 * (os.cpu_count() or 1)):
        hands.pick_row()
        pid = os.fork()
        if pid == 0:
            while True:
                hands.begin()
                for run in runs.values():
                    hands.take(*run)
        writers.append(pid)
    try:
        seen, until = 0, time.monotonic() + 3
        while time.monotonic() < until:
            for taken in hands.all():
                seen += 1
                assert taken.pid in writers
                assert (taken.run_id, taken.action) == runs[taken.number]
        assert seen > 1000
    finally:
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_child_that_was_killed_while_it_wrote_has_nothing_in_hand(hands: Hands) -> None:
    """And the next child of the row begins as any other."""
    with child(hands, lambda: hands.take(RUN, "first")) as pid:
        version_at = hands._next * ROW_WORDS
        hands._table._words[version_at] += 1
        assert hands.of(pid) is None
        hands._mine = hands._next
        hands.begin()
        hands.take(RUN, "second")
        assert [taken.action for taken in hands.all()] == ["second"]


def test_a_process_that_has_a_dead_childs_id_has_nothing_in_hand(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = os.getppid()  # lives, and is no child of this process
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: another)
        hands.begin()
        hands.take(RUN, "first")
    assert hands.of(another) is not None  # it could still be asked about
    assert hands.all() == []


def test_a_dead_child_that_was_asked_about_is_forgotten(hands: Hands) -> None:
    with child(hands, lambda: hands.take(RUN, "first")) as pid:
        pass
    hands.forget(0)
    assert hands.of(pid) is not None
    hands.forget(pid)
    assert hands.of(pid) is None
