"""The generated secrets of a development machine, kept across restarts."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field

from callboard.errors import ConfigurationError
from callboard.settings import DEVELOPMENT_SECRET
from callboard.stack.folder import DataFolder

__all__ = ["DevelopmentSecrets", "keep_secrets", "read_secrets"]

_FILE = "secrets.json"


def _development_secret() -> str:
    return DEVELOPMENT_SECRET + secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentSecrets:
    """Refused in production: each of the first two begins with `DEVELOPMENT_SECRET`."""

    secret_key: str = field(default_factory=_development_secret, repr=False)
    jwt_secret: str = field(default_factory=_development_secret, repr=False)
    redis_password: str = field(default_factory=secrets.token_hex, repr=False)
    mongodb_password: str = field(default_factory=secrets.token_hex, repr=False)


def read_secrets(folder: DataFolder) -> DevelopmentSecrets | None:
    """The secrets of this folder; None where `callboard up` has not run yet."""
    stored = folder.read_json(_FILE)
    if stored is None:
        return None
    try:
        return DevelopmentSecrets(**stored)
    except TypeError as error:
        raise ConfigurationError(
            f"{folder.path / _FILE} is damaged. Move the data folder away and start again."
        ) from error


def keep_secrets(folder: DataFolder) -> DevelopmentSecrets:
    """The secrets of this folder, generated on the first use."""
    found = read_secrets(folder)
    if found is None:
        found = DevelopmentSecrets()
        folder.write(_FILE, json.dumps(asdict(found), indent=2))
    return found
