"""What an invitation starts: ``pytest`` in this folder. Callboard brings `call`."""

from datetime import UTC, datetime, timedelta

import pytest

from callboard import fail

INVITE = {"eventId": "evt_1", "attendeeId": "usr_2"}
EVENT = {"title": "Tea", "attendeeIds": ["usr_1"]}


def test_an_invitation_starts_its_mail_and_a_reminder_on_the_day_before(call):
    starts = datetime.now(UTC) + timedelta(days=3)
    call.tools.create("events", {**EVENT, "startsAt": starts.isoformat()}, "evt_1").unwrap()
    call("inviteAttendee", INVITE).unwrap()
    mail, reminder = call.started
    assert mail["params"] == {"to": "usr_2", "subject": "You are invited: Tea"}
    assert mail["delay"] == 0
    assert (reminder["action"], reminder["params"]) == ("remind", INVITE)
    assert reminder["delay"] == pytest.approx(timedelta(days=2).total_seconds(), abs=60)


def test_who_attends_already_is_invited_no_second_time(call):
    call.tools.create("events", {**EVENT, "startsAt": "2020-01-01T00:00:00Z"}, "evt_1").unwrap()
    call("inviteAttendee", {**INVITE, "attendeeId": "usr_1"}).unwrap()
    assert call.started == []


def test_without_the_event_nothing_is_started(call):
    assert call("inviteAttendee", INVITE) == fail("Record not found", "not_found")
    assert call.started == []
