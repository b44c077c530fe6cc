"""Invite an attendee to an event: ``python invite.py EVENT ATTENDEE``."""

import os
import sys

from callboard import Client


def main(event: str, attendee: str) -> None:
    """Call the action and print what became of it."""
    url, token = os.environ["CALLBOARD_URL"], os.environ["CALLBOARD_TOKEN"]
    with Client(url, token, retries=3) as client:
        result = client.call("inviteAttendee", {"eventId": event, "attendeeId": attendee})
    if not result.success:
        sys.exit(f"Not invited: {result.error}")
    print(result.data["recordId"])


if __name__ == "__main__":
    main(*sys.argv[1:])
