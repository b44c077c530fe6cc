"""Invite each attendee on standard input to an event: ``python enqueue.py EVENT``."""

import os
import sys

import callboard


def main(event: str) -> None:
    """One run for each; run again, no second one: the key says which invitation it is."""
    for attendee in map(str.strip, sys.stdin):
        params = {"eventId": event, "attendeeId": attendee}
        owner = os.environ["OWNER_USER_ID"]
        print(callboard.enqueue("inviteAttendee", params, caller=owner, key=f"{event} {attendee}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
