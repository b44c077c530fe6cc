"""The file ``.env`` of a development machine: settings that the environment does not have.

The commands of a developer read it (`callboard up`, `call`, `doctor`, ...); the four programs do
not: in production the environment alone counts.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from callboard.errors import ConfigurationError

__all__ = ["adopt_env_file", "read_env_file"]

MAX_BYTES = 1_000_000


def read_env_file(path: Path) -> dict[str, str]:
    """The variables in it that have a value; none where there is no such file.

    Values are taken as they are: nothing in them is replaced. Raises `ConfigurationError` with
    the number of a line that cannot be read; what stands there may be secret.
    """
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(_text(path))):
        if binding.error:
            raise ConfigurationError(
                f"{path}:{binding.original.line}: is not NAME=value. Quote values that span lines."
            )
        if binding.key and binding.value:
            values[binding.key] = binding.value
    return values


def adopt_env_file(path: Path) -> tuple[str, ...]:
    """Put what the environment does not say into it; the names of these variables."""
    values = read_env_file(path)
    missing = tuple(name for name in values if not os.environ.get(name))
    os.environ.update({name: values[name] for name in missing})
    return missing


def _text(path: Path) -> str:
    if not path.is_file():  # none, a folder, or /dev/null
        return ""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as UTF-8 text.") from error
