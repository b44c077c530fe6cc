# actions/services.py
"""Third parties; here each is a collection. Put your provider's client in their place."""

from callboard import ActionContext


def charge(ctx: ActionContext, key: str, amount: float) -> str:
    """Take the money: once for one key, as payment services do it. Answers the receipt."""
    return ctx.tools.create("charges", {"amount": amount}, key).unwrap()["recordId"]


def refund(ctx: ActionContext, receipt: str) -> None:
    """Give it back: once for one receipt."""
    ctx.tools.create("refunds", {}, receipt).unwrap()


def send_mail(ctx: ActionContext, subject: str) -> None:
    """Send a mail to whoever has ordered."""
    ctx.tools.create("mails", {"subject": subject}).unwrap()
