"""The pytest plugin for applications: `call` in this process, `live_stack` over HTTP.

It is there as soon as Callboard is installed. Nothing is started before a test asks for it::

    def test_invite_attendee_adds_the_attendee(call):
        call.tools.create("events", {"attendeeIds": []}, "evt_1")
        result = call("inviteAttendee", {"eventId": "evt_1", "attendeeId": "usr_2"})
        assert result.success

Needs the extra ``callboard[embedded]``, or servers of yours in MONGODB_URI and REDIS_URL: tests
take databases of their own there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from callboard.testing.inline import InlineCall, InlineStack
    from callboard.testing.live import LiveStack

__all__ = ["call", "live_stack"]


@pytest.fixture
def call(_inline_stack: InlineStack) -> Iterator[InlineCall]:
    """Call an action in this process: ``call("inviteAttendee", {...}, as_user="alice")``.

    No HTTP and no queue, but the real tools on a real database, which is empty before each
    test. See `callboard.testing.inline.InlineCall`.
    """
    with _inline_stack.fresh() as fresh:
        yield fresh


@pytest.fixture(scope="session")
def live_stack(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[LiveStack]:
    """The whole `callboard up`, on free ports: ``live_stack.call("inviteAttendee", {...})``.

    One for all tests, with one database. See `callboard.testing.live.LiveStack`.
    """
    from callboard.testing.live import LiveStack

    folder = tmp_path_factory.mktemp("callboard-up")
    with LiveStack.started(folder, cwd=pytestconfig.rootpath) as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture(scope="session")
def _inline_stack(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[InlineStack]:
    """The embedded database and the application's actions, for all calls of this session."""
    from callboard.testing.inline import InlineStack
    from callboard.testing.servers import named_servers

    root = pytestconfig.rootpath
    if str(root) not in sys.path:  # where the actions package is, as for the real processes
        sys.path.insert(0, str(root))
    folder = tmp_path_factory.mktemp("callboard")
    uri = named_servers(os.environ, root).get("MONGODB_URI")
    with InlineStack.started(folder, os.environ, uri) as stack:
        yield stack
