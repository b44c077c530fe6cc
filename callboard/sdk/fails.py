"""The codes that a handler declares for its failures: for OpenAPI and the clients' types.

In its annotation, ``-> Annotated[ActionResult[Booked], Fails["no_seats", "too_late"]]``, or in its
docstring::

    Fails:
        no_seats: all are taken
        too_late: the event has begun
"""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any

from callboard.codes import checked_code
from callboard.errors import ConfigurationError
from callboard.sdk.params import resolved_annotation

__all__ = ["Fails", "declared_codes"]

_SECTION = re.compile(r"^Fails:[ \t]*\n((?:[ \t]+\S.*(?:\n|$)|[ \t]*\n)+)", re.MULTILINE)
_ITEM = re.compile(r"(?:[-*] )?(`{0,2})([^\s:`]+)\1(?=:|\s*$)")


class _Fails:
    """``Fails["no_seats", "too_late"]``: codes, as the metadata of an annotation."""

    def __init__(self, codes: tuple[str, ...] = ()) -> None:
        self.codes = codes

    def __getitem__(self, codes: str | tuple[str, ...]) -> _Fails:
        """Raises `ConfigurationError` for what is no code."""
        return _Fails(tuple(_checked(codes if isinstance(codes, tuple) else (codes,))))

    def __repr__(self) -> str:
        return f"Fails[{', '.join(map(repr, self.codes))}]"


Fails = _Fails()


def declared_codes(handler: Callable[..., Any]) -> tuple[str, ...]:
    """The codes, each once, in their order; none where it declares none.

    Raises `ConfigurationError` for what is no code.
    """
    return tuple(dict.fromkeys((*_annotated(handler), *_checked(_listed(handler)))))


def _annotated(handler: Callable[..., Any]) -> tuple[str, ...]:
    try:
        annotation = resolved_annotation(inspect.unwrap(handler), "return")
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - a name under `if TYPE_CHECKING:`
        return ()
    found = [part for part in typing.get_args(annotation)[1:] if isinstance(part, _Fails)]
    return tuple(code for fails in found for code in fails.codes)


def _listed(handler: Callable[..., Any]) -> Iterator[str]:
    """The codes of the docstring's list; further lines of an item are indented more."""
    section = _SECTION.search(inspect.getdoc(handler) or "")
    for line in textwrap.dedent(section[1]).splitlines() if section else ():
        if line and not line[0].isspace():
            item = _ITEM.match(line)
            yield item[2] if item else line


def _checked(codes: typing.Iterable[str]) -> Iterator[str]:
    for code in codes:
        try:
            yield checked_code(code)
        except ValueError as error:
            raise ConfigurationError(f"Fails: {error}") from None
