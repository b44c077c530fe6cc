"""`callboard token`: a token for development and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from callboard import strict_json
from callboard.cli.development import data_dir_option, signed_token
from callboard.stack.tokens import DEFAULT_TTL

__all__ = ["token"]

LONGEST = 255  # characters of a subject


@click.command()
@click.argument("sub", callback=lambda _, __, value: _subject(value))
@click.option(
    "--ttl", type=click.IntRange(min=1), default=DEFAULT_TTL, show_default=True, help="Seconds."
)
@click.option("--claim", "claims", multiple=True, metavar="K=V", help="V is JSON, else a text.")
@data_dir_option
def token(sub: str, ttl: int, claims: tuple[str, ...], data_dir: Path) -> None:
    """Print a token whose subject is SUB.

    Signed with JWT_SECRET, or with the generated secret of `callboard up`.
    """
    click.echo(signed_token(data_dir, sub, ttl=ttl, claims=dict(map(_claim, claims))))


def _subject(text: str) -> str:
    if not text.strip() or len(text) > LONGEST or not text.isprintable():
        raise click.BadParameter(f"must be 1 to {LONGEST} characters, such as alice")
    return text


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not K=V", param_hint="--claim")
    try:
        return name, strict_json.loads(value)
    except ValueError:
        return name, value
