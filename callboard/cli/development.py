"""What the commands share: the stack that runs on this machine, and tokens for it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from callboard.errors import ConfigurationError
from callboard.stack.folder import DEFAULT_FOLDER, DataFolder
from callboard.stack.running import Running, read_running
from callboard.stack.secrets import read_secrets
from callboard.stack.tokens import DEFAULT_TTL, mint_token
from callboard.subject import check_subject

__all__ = [
    "adopt_running_stack",
    "caller_flags",
    "data_dir_option",
    "from_env_file",
    "signed_token",
    "token_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def data_dir_option(command: Command) -> Command:
    """The option --data-dir."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=True),
        default=DEFAULT_FOLDER,
        show_default=True,
        help="Where `callboard up` keeps its data and secrets.",
    )(command)


def from_env_file() -> tuple[str, ...]:
    """The variables that .env gave to this command."""
    names: tuple[str, ...] = click.get_current_context().find_root().obj or ()
    return names


def token_option(command: Command) -> Command:
    """The option --token."""
    return click.option(
        "--token",
        envvar="CALLBOARD_TOKEN",
        callback=lambda _, __, value: _header_text(value),
        help="Instead of a signed one.",
    )(command)


def _header_text(token: str | None) -> str | None:
    """A token as a header can carry it."""
    if token and not re.fullmatch(r"[!-~]+", token.strip()):
        raise click.BadParameter("holds what no token holds: blanks, or other than ASCII")
    return token.strip() if token else None


def adopt_running_stack(data_dir: Path) -> Running | None:
    """Take what the environment does not say from the `callboard up` that runs on ``data_dir``."""
    running = read_running(DataFolder(data_dir))
    if running is not None:
        for name, value in running.environment.items():
            if not os.environ.get(name):
                os.environ[name] = value
    return running


def caller_flags(*, subject: str | None, url: str | None, token: str | None, data_dir: Path) -> str:
    """The flags with which `callboard runs` asks the same API as the same caller.

    A token is not repeated: it may come from CALLBOARD_TOKEN again.
    """
    flags = ["--as", subject] if subject and not token else []
    if url:
        flags += ["--url", url]
    if data_dir != DEFAULT_FOLDER:
        flags += ["--data-dir", str(data_dir)]
    return shlex.join(flags)


def signed_token(
    data_dir: Path,
    subject: str,
    *,
    ttl: int = DEFAULT_TTL,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """A token signed with JWT_SECRET, or with the generated secret of this development machine."""
    try:
        check_subject(subject, "--as")
    except ValueError as error:
        raise click.UsageError(f"{error}, such as alice.") from error
    adopt_running_stack(data_dir)
    secret = os.environ.get("JWT_SECRET")
    if not secret:
        for name in ("JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
            if os.environ.get(name):
                raise ConfigurationError(
                    f"Tokens are verified with {name}: only the identity provider can sign one. "
                    f"Put a token of it into CALLBOARD_TOKEN."
                )
        kept = read_secrets(DataFolder(data_dir))
        if kept is None:
            raise ConfigurationError(
                f"There is no secret to sign with: set JWT_SECRET, or start `callboard up` once "
                f"(looked in {data_dir})."
            )
        secret = kept.jwt_secret
    return mint_token(subject, secret, ttl=ttl, claims=claims)
