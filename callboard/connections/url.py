"""A connection URL, taken apart without a word of it in any message: it holds a password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

__all__ = ["ConnectionUrl"]

ENCODED = (
    "in user and password, percent-encode what has a meaning in URLs "
    "(@ is %40, : is %3A, / is %2F, # is %23, ? is %3F, % is %25, a blank is %20)"
)

_FORM = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<userinfo>[^/?#]*)@)?(?P<hosts>[^/?#@]+)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_USERINFO = re.compile(r"(?:[^@%\[\]<>]|%[0-9A-Fa-f]{2})*")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionUrl:
    """The parts of ``scheme://user:password@hosts/path?query``; user and password are decoded."""

    scheme: str  # lower case
    username: str | None
    password: str | None = field(repr=False)
    hosts: str  # as given: "host:port", or several with commas
    path: str  # with its slash; "" where there is none
    query: str = field(repr=False)  # as given

    @classmethod
    def parse(cls, text: str, example: str) -> Self:
        """Raises ValueError, which shows the ``example`` and nothing of the text."""
        form = None if _BLANK.search(text) else _FORM.fullmatch(text)
        userinfo = (form["userinfo"] or "") if form else ""
        if re.search("<[^>]*>", userinfo):
            raise ValueError(
                f"holds a placeholder for user or password. It must look like {example}"
            )
        if not form or not _USERINFO.fullmatch(userinfo):
            raise ValueError(f"must look like {example}; {ENCODED}")
        username, _, password = userinfo.partition(":")
        return cls(
            scheme=form["scheme"].lower(),
            username=unquote(username) or None,
            password=unquote(password) or None,
            hosts=form["hosts"],
            path=form["path"] or "",
            query=form["query"] or "",
        )
