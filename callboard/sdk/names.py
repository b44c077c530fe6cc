"""The naming rules: what may name a collection, a record, a field of its data, a signal and a step.

Each function returns the name as plain text and raises `InvalidData` for what is none.
They are the fence around MongoDB's own syntax: no text that passes can be an operator
(``$...``), a path that leaves ``data``, or a collection that is not the application's.
"""

from __future__ import annotations

import re
import unicodedata
from types import MappingProxyType

from callboard.errors import InvalidData

__all__ = [
    "ENVELOPE",
    "collection_name",
    "data_key",
    "field_path",
    "record_id",
    "signal_name",
    "step_name",
]

ENVELOPE = MappingProxyType(
    {
        "recordId": "_id",
        "createdBy": "createdBy",
        "createdAt": "createdAt",
        "updatedBy": "updatedBy",
        "updatedAt": "updatedAt",
    }
)
"""The fields of a record around its data, and where the stored document has them."""

MAX_RECORD_ID = 255  # characters
MAX_STEP = 200  # characters
MAX_PATH = 64  # keys in one dotted path, as deep as data goes

_COLLECTION = re.compile(r"(?!system)[A-Za-z][A-Za-z0-9_-]{0,63}")
_SIGNAL = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNSAFE_CATEGORIES = {"Cc", "Cs"}  # control characters; halves of a surrogate pair


def collection_name(value: object) -> str:
    """A collection: a letter, then up to 63 letters, digits, ``_`` or ``-``; not ``system*``."""
    if not isinstance(value, str) or not _COLLECTION.fullmatch(value):
        raise InvalidData(
            f"Invalid collection {_shown(value)}: a letter, then up to 63 letters, digits, "
            f"_ or -, not beginning with 'system'"
        )
    return str.__str__(value)


def record_id(value: object) -> str:
    """A record id: 1..255 characters, no control characters, not starting with ``$``."""
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= MAX_RECORD_ID
        or value.startswith("$")
        or not _is_printable(value)
    ):
        raise InvalidData(
            f"Invalid record id {_shown(value)}: text of 1 to {MAX_RECORD_ID} characters, "
            f"no control characters, not beginning with '$'"
        )
    return str.__str__(value)


def data_key(value: object, path: str) -> str:
    """A key of data, at any depth: not empty, no NUL, no ``.``, not starting with ``$``.

    ``path`` names the object that holds the key, for the message. A ``.`` is refused because
    MongoDB would read it as the path to another field.
    """
    if not isinstance(value, str) or "." in value or not _is_key(value):
        raise InvalidData(
            f"{path}: invalid key {_shown(value)}: text that is not empty, has no '.' and no "
            f"NUL, and does not begin with '$'"
        )
    return str.__str__(value)


def step_name(kind: str, value: object) -> str:
    """A step or a sleep (``kind``): 1 to 200 characters that can be printed."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_STEP or not value.isprintable():
        raise InvalidData(
            f"Invalid {kind} {_shown(value)}: a text of 1 to {MAX_STEP} characters that can be "
            f"printed"
        )
    return str.__str__(value)


def signal_name(value: object) -> str:
    """A signal: a letter or digit, then up to 63 letters, digits, ``_``, ``.`` or ``-``."""
    if not isinstance(value, str) or not _SIGNAL.fullmatch(value):
        raise InvalidData(
            f"Invalid signal {_shown(value)}: a letter or digit, then up to 63 letters, digits, "
            f"_, . or -"
        )
    return str.__str__(value)


def field_path(value: object, what: str) -> str:
    """The stored path of a field that ``where``, ``order_by`` or an index (``what``) names.

    ``recordId``, ``createdBy``, ``createdAt``, ``updatedBy`` and ``updatedAt`` are the
    envelope; anything else is a dotted path in the record's data.
    """
    if isinstance(value, str):
        if value in ENVELOPE:
            return ENVELOPE[value]
        keys = value.split(".")
        if len(keys) <= MAX_PATH and all(map(_is_key, keys)):
            return f"data.{value}"
    raise InvalidData(
        f"{what}: invalid field {_shown(value)}: keys joined by '.', each not empty, without "
        f"NUL, and not beginning with '$'"
    )


def _is_key(text: str) -> bool:
    return bool(text) and not text.startswith("$") and "\0" not in text and _is_encodable(text)


def _is_encodable(text: str) -> bool:
    """Whether UTF-8 can carry the text: JSON's escapes can spell half a surrogate pair."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _is_printable(text: str) -> bool:
    return text.isprintable() or not any(
        unicodedata.category(char) in _UNSAFE_CATEGORIES for char in text
    )


def _shown(value: object) -> str:
    """A refused name as a message may show it: short, and no object's own text."""
    return f"{str.__str__(value)!r:.80}" if isinstance(value, str) else f"({type(value).__name__})"
