"""Moments: from and to the forms in which they are kept and shown."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["from_milliseconds", "iso"]


def from_milliseconds(milliseconds: int) -> datetime:
    """The moment so many milliseconds after the epoch, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def iso(moment: datetime) -> str:
    """An aware moment as ISO 8601 in UTC with milliseconds and ``Z``."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
