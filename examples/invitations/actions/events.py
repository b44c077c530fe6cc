# actions/events.py
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from callboard import ActionContext, ActionResult, action, ok


class Invite(BaseModel):
    eventId: str
    attendeeId: str


class Mail(BaseModel):
    to: str
    subject: str


@action(transaction=True)
def invite_attendee(ctx: ActionContext, params: Invite) -> ActionResult:
    """Add an attendee to an event, once; the mails are started with that, or not at all."""
    event = ctx.tools.get("events", params.eventId).unwrap()["record"]["data"]
    attendees = event["attendeeIds"]
    if params.attendeeId in attendees:
        return ok({"recordId": params.eventId})
    ctx.start(
        "sendMail", {"to": params.attendeeId, "subject": f"You are invited: {event['title']}"}
    ).unwrap()
    day_before = datetime.fromisoformat(event["startsAt"]) - timedelta(days=1)
    if day_before > datetime.now(UTC):
        ctx.start("remind", params.model_dump(), at=day_before).unwrap()
    return ctx.tools.update(
        "events", params.eventId, {"attendeeIds": [*attendees, params.attendeeId]}
    )


@action(internal=True)
def remind(ctx: ActionContext, params: Invite) -> ActionResult:
    """Remind an attendee of an event, if it still takes place and they still attend it."""
    event = ctx.tools.get("events", params.eventId).unwrap()["record"]["data"]
    if params.attendeeId not in event["attendeeIds"]:
        return ok()
    return send_mail(ctx, Mail(to=params.attendeeId, subject=f"Tomorrow: {event['title']}"))


@action(internal=True)
def send_mail(ctx: ActionContext, params: Mail) -> ActionResult:
    """Have the gateway send a mail. A rerun sends the same Idempotency-Key, so it is one mail."""
    return ctx.tools.integration("mail/send", params.model_dump())
