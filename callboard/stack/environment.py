"""The environment that `callboard up` gives to its processes: what the user did not set."""

from __future__ import annotations

from collections.abc import Mapping

from callboard.settings import KEY_VARIABLES
from callboard.stack.secrets import DevelopmentSecrets

__all__ = ["SHARED", "development_environment"]

SHARED = (
    "REDIS_URL",
    "MONGODB_URI",
    "SECRET_KEY",
    *KEY_VARIABLES,
    "JWT_ALGORITHMS",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_AUTHORIZED_PARTIES",
    "OWNER_USER_ID",
    "CALLBOARD_ACTIONS",
    "CALLBOARD_NAMESPACE",
    "CALLBOARD_ENV",
)
"""What the other commands need to know of a running stack."""


def development_environment(
    given: Mapping[str, str], secrets: DevelopmentSecrets
) -> dict[str, str]:
    """All of ``given`` and, where it says nothing, development values.

    REDIS_URL and MONGODB_URI are not among them: the servers say where they are.
    """
    found = {name: value for name, value in given.items() if value}
    environment = {
        "SECRET_KEY": secrets.secret_key,
        "OWNER_USER_ID": "owner",
        "CALLBOARD_STOP_GRACE": "5",
        **found,
        "CALLBOARD_ENV": "development",
    }
    if not any(name in found for name in KEY_VARIABLES):
        environment["JWT_SECRET"] = secrets.jwt_secret
    return environment
