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
from worker.lease.held import HeldRuns
from worker.lease.scoreboard import ROWS, Scoreboard
from worker.lease.table import ROW_WORDS

RUN = str(uuid4())


@pytest.fixture
def scoreboard() -> Scoreboard:
    return Scoreboard(["first", "second"])


@contextmanager
def child(scoreboard: Scoreboard, does: Callable[[], None]) -> Iterator[int]:
    """A forked process that does this and waits; its id. Killed with the block."""
    scoreboard.pick_row()

    def begin() -> None:
        scoreboard.begin()
        does()

    with forked(begin) as pid:
        yield pid


def test_the_parent_sees_what_a_child_has_in_hand(scoreboard: Scoreboard) -> None:
    before = time.monotonic()
    with child(scoreboard, lambda: scoreboard.take(RUN, "second")) as pid:
        (taken,) = scoreboard.all()
        assert (taken.pid, taken.number, taken.action, taken.run_id) == (pid, 1, "second", RUN)
        assert before <= taken.since <= time.monotonic()


def test_a_run_that_was_let_go_is_in_no_hand(scoreboard: Scoreboard) -> None:
    def does() -> None:
        scoreboard.take(RUN, "first")
        scoreboard.let_go()

    with child(scoreboard, does) as pid:
        assert scoreboard.all() == []
        assert scoreboard.of(pid) is None


def test_time_that_was_over_before_is_the_runs_and_not_the_next_ones(
    scoreboard: Scoreboard,
) -> None:
    def does() -> None:
        scoreboard.take(RUN, "first")
        scoreboard.note_spent(20.0)

    def then() -> None:
        does()
        scoreboard.take(RUN, "first")

    @action(name="first", timeout=30)
    def first(ctx: ActionContext) -> ActionResult:
        return ok()

    for what, left in ((does, 10), (then, 30)):
        held = HeldRuns(scoreboard, [], {"first": first}, lambda pid, number: "", lease=5.0)
        with child(scoreboard, what):
            [one] = held.all()
            assert round(one.out_at - one.active.since) == left
            assert round(one.stop_at - one.out_at) == round(held._patience)
            assert one.lapses_at - one.active.since == 5.0
            assert held.all() == [one]


def test_the_same_run_taken_twice_is_two(scoreboard: Scoreboard) -> None:
    def does() -> None:
        for _ in range(2):
            scoreboard.take(RUN, "first")

    with child(scoreboard, does):
        assert [taken.number for taken in scoreboard.all()] == [2]


def test_what_a_dead_child_had_in_hand_is_known_though_it_is_not_in_hand(
    scoreboard: Scoreboard,
) -> None:
    with child(scoreboard, lambda: scoreboard.take(RUN, "first")) as pid:
        pass
    assert scoreboard.all() == []
    taken = scoreboard.of(pid)
    assert taken is not None
    assert taken.run_id == RUN


def test_the_next_child_does_not_write_over_it(scoreboard: Scoreboard) -> None:
    with child(scoreboard, lambda: scoreboard.take(RUN, "first")) as dead:
        pass
    with child(scoreboard, lambda: scoreboard.take(RUN, "second")) as pid:
        assert [taken.pid for taken in scoreboard.all()] == [pid]
        assert scoreboard.of(dead) is not None


def test_rows_are_used_again_when_their_children_are_gone(scoreboard: Scoreboard) -> None:
    for _ in range(ROWS + 1):
        scoreboard.pick_row()
    with child(scoreboard, lambda: scoreboard.take(RUN, "first")):
        living = scoreboard.all()
        for _ in range(ROWS):  # once around: the row of the living child is passed over
            scoreboard.pick_row()
        scoreboard.begin()
        assert scoreboard.all() == living


def test_a_stop_is_asked_of_one_run_only(scoreboard: Scoreboard) -> None:
    scoreboard.begin()
    scoreboard.take(RUN, "first")
    assert not scoreboard.stop_is_requested()
    scoreboard.request_stop(scoreboard.all()[0])
    assert scoreboard.stop_is_requested()
    scoreboard.take(RUN, "first")
    assert not scoreboard.stop_is_requested()


def test_a_stop_that_comes_too_late_is_for_nobody(scoreboard: Scoreboard) -> None:
    scoreboard.begin()
    scoreboard.take(RUN, "first")
    earlier = scoreboard.all()[0]
    scoreboard.take(RUN, "second")
    scoreboard.request_stop(earlier)
    assert not scoreboard.stop_is_requested()


def test_closing_reaches_children_that_live_already(scoreboard: Scoreboard) -> None:
    assert not scoreboard.closed

    def does() -> None:
        deadline = time.monotonic() + 60
        while not scoreboard.closed and time.monotonic() < deadline:
            pass
        scoreboard.take(RUN, "second" if scoreboard.closed else "first")

    scoreboard.pick_row()
    pid = os.fork()
    if pid == 0:
        scoreboard.begin()
        does()
        os._exit(0)
    scoreboard.close()
    os.waitpid(pid, 0)
    taken = scoreboard.of(pid)
    assert taken is not None
    assert taken.action == "second"


def test_who_reads_while_children_write_reads_one_run_or_none(scoreboard: Scoreboard) -> None:
    """More writers than cores, so that some are stopped by the kernel in the middle of a row."""
    runs = {number: (f"{number:036d}", ("first", "second")[number % 2]) for number in range(1, 500)}
    writers = []
    for _ in range(4 * (os.cpu_count() or 1)):
        scoreboard.pick_row()
        pid = os.fork()
        if pid == 0:
            while True:
                scoreboard.begin()
                for run in runs.values():
                    scoreboard.take(*run)
        writers.append(pid)
    try:
        seen, until = 0, time.monotonic() + 3
        while time.monotonic() < until:
            for taken in scoreboard.all():
                seen += 1
                assert taken.pid in writers
                assert (taken.run_id, taken.action) == runs[taken.number]
        assert seen > 1000
    finally:
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_child_that_was_killed_while_it_wrote_has_nothing_in_hand(scoreboard: Scoreboard) -> None:
    """And the next child of the row begins as any other."""
    with child(scoreboard, lambda: scoreboard.take(RUN, "first")) as pid:
        version_at = scoreboard._next * ROW_WORDS
        scoreboard._table._words[version_at] += 1
        assert scoreboard.of(pid) is None
        scoreboard._mine = scoreboard._next
        scoreboard.begin()
        scoreboard.take(RUN, "second")
        assert [taken.action for taken in scoreboard.all()] == ["second"]


def test_a_process_that_has_a_dead_childs_id_has_nothing_in_hand(
    scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = os.getppid()  # lives, and is no child of this process
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: another)
        scoreboard.begin()
        scoreboard.take(RUN, "first")
    assert scoreboard.of(another) is not None  # it could still be asked about
    assert scoreboard.all() == []


def test_a_dead_child_that_was_asked_about_is_forgotten(scoreboard: Scoreboard) -> None:
    with child(scoreboard, lambda: scoreboard.take(RUN, "first")) as pid:
        pass
    scoreboard.forget(0)
    assert scoreboard.of(pid) is not None
    scoreboard.forget(pid)
    assert scoreboard.of(pid) is None
