"""Events and who attends them."""

from pydantic import BaseModel

from callboard import ActionContext, ActionResult, action


class Invite(BaseModel):
    eventId: str
    attendeeId: str


@action(transaction=True)  # two invitations at the same moment keep both attendees
def invite_attendee(ctx: ActionContext, params: Invite) -> ActionResult:
    """Add an attendee to an event, once."""
    event = ctx.tools.get("events", params.eventId)
    if not event.success:
        return event
    current = event.data["record"]["data"].get("attendeeIds", [])
    attendees = [*dict.fromkeys([*current, params.attendeeId])]
    return ctx.tools.update("events", params.eventId, {"attendeeIds": attendees})
