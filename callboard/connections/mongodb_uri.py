"""MONGODB_URI: what hosted databases print is taken as it is, but for what runs cannot rely on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from urllib.parse import unquote_plus

from callboard.connections.url import ENCODED, ConnectionUrl

__all__ = ["check", "unreadable"]

EXAMPLE = "mongodb://[user:password@]host[:port][,host...]/database, or mongodb+srv://..."
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,@]+)(?::[0-9]{1,5})?"
_HOSTS = re.compile(f"{_HOST}(?:,{_HOST})*")
_NAME = re.compile(r"[A-Za-z_]{1,40}")  # of an option that a message may show
_FILES = ("tlscafile", "tlscertificatekeyfile", "tlscrlfile")

_LOST = "a write that was answered could be lost"
_UNSEEN = "a handler would not see what was written before"
_UNVERIFIED = "a server that nobody vouches for would get the password"
# Option in lower case -> what may be asked for, and why nothing else.
_NEEDED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "w": (("majority",), _LOST),
    "journal": (("true",), _LOST),
    "j": (("true",), _LOST),
    "fsync": (("false",), _LOST),
    "readpreference": (("primary",), _UNSEEN),
    "readpreferencetags": ((), _UNSEEN),
    "maxstalenessseconds": (("-1",), _UNSEEN),
    "readconcernlevel": (("local", "majority"), _UNSEEN),
    "tlsinsecure": (("false",), _UNVERIFIED),
    "tlsallowinvalidcertificates": (("false",), _UNVERIFIED),
    "tlsallowinvalidhostnames": (("false",), _UNVERIFIED),
}


def check(uri: str) -> None:
    """Raises ValueError with what is wrong and the next step; nothing secret is in it.

    Does no I/O: no name is resolved, no file is read.
    """
    url = ConnectionUrl.parse(uri, EXAMPLE)
    if url.scheme not in ("mongodb", "mongodb+srv"):
        raise ValueError(f"must look like {EXAMPLE}")
    if not _HOSTS.fullmatch(url.hosts):
        raise ValueError(f"must look like {EXAMPLE}; {ENCODED}")
    if not re.fullmatch(r"/[A-Za-z0-9_-]{1,63}", url.path):
        raise ValueError(
            "its path must name the database, before any options: mongodb://host:port/database"
        )
    options = _options(url.query)
    for name, value in options.items():
        _check_needed(name, value)
    _check_known({name: value for name, value in options.items() if _is_pymongos(name)})


def unreadable(uri: str) -> str | None:
    """Why a file that it names cannot be read; None where all can."""
    options = _options(ConnectionUrl.parse(uri, EXAMPLE).query)
    for name, value in options.items():
        if name.lower() in _FILES:
            try:
                open(unquote_plus(value), "rb").close()
            except OSError as error:
                return f"{name} {unquote_plus(value)} cannot be read: {error.strerror}"
    return None


def _options(query: str) -> dict[str, str]:
    """Name, as given -> value, still encoded."""
    options: dict[str, str] = {}
    for option in filter(None, re.split("[&;]", query)):
        name, equals, value = option.partition("=")
        if not _NAME.fullmatch(name) or not equals:
            raise ValueError("has an option that is not name=value")
        if name.lower() in map(str.lower, options):
            raise ValueError(f"names the option {name} twice")
        options[name] = value
    return options


def _check_needed(name: str, value: str) -> None:
    needed, why = _NEEDED.get(name.lower(), ((value.lower(),), ""))
    if value.lower() not in needed:
        raise ValueError(
            f"asks for {name}={value:.20}, with which {why}: Callboard needs "
            f"{' or '.join(needed) or 'none'}; leave {name} out"
        )


def _is_pymongos(name: str) -> bool:
    """Whether PyMongo's check of it says something: Callboard sets some options over all others,
    and files are looked at where the process starts."""
    return name.lower() not in (*_NEEDED, *_FILES)


def _check_known(options: Mapping[str, str]) -> None:
    """Raises ValueError for what PyMongo does not know, or not together with the rest."""
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import split_options

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for names in (*((name,) for name in options), tuple(options)):
            try:
                if names:
                    split_options("&".join(f"{name}={options[name]}" for name in names))
            except (PyMongoError, ValueError, TypeError) as error:
                listed = ", ".join(names)
                raise ValueError(
                    f"has {listed}, refused by PyMongo{_told(listed, error)}"
                ) from None


def _told(names: str, error: Exception) -> str:
    """PyMongo's text, unless the value may be a secret."""
    secret = re.search("password|properties", names, re.IGNORECASE)
    return "" if secret else f": {error!s:.300}"
