"""The subject: the text that names a caller, a JWT's ``sub``."""

from __future__ import annotations

__all__ = ["MAX_SUBJECT_LENGTH", "check_subject"]

MAX_SUBJECT_LENGTH = 255  # characters


def check_subject(subject: str, name: str = "sub") -> None:
    """Raises ValueError for a text that names no caller; it says so of ``name``."""
    if not 0 < len(subject) <= MAX_SUBJECT_LENGTH:
        raise ValueError(f"{name} is not a text of 1..{MAX_SUBJECT_LENGTH} characters")
    if any(ord(character) < 32 or ord(character) == 127 for character in subject):
        raise ValueError(f"{name} holds control characters")
