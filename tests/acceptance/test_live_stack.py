"""`live_stack` of the pytest plugin: the whole `callboard up`, for tests over HTTP."""


def test_invite_attendee_adds_the_attendee(live_stack):
    with live_stack.database() as database:
        database["events"].insert_one({"_id": "evt_1", "data": {"attendeeIds": []}})
    response = live_stack.call("inviteAttendee", {"eventId": "evt_1", "attendeeId": "usr_2"})
    assert response.status_code == 200
    assert response.json()["success"]


def test_invite_attendee_requires_a_caller(live_stack):
    params = {"eventId": "evt_1", "attendeeId": "usr_2"}
    assert live_stack.call("inviteAttendee", params, as_user=None).status_code == 401
