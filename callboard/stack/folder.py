"""The data folder (``.callboard/``): secrets, logs, the embedded servers' data. Mode 0700."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callboard.errors import ConfigurationError

__all__ = ["DEFAULT_FOLDER", "DataFolder"]

DEFAULT_FOLDER = Path(".callboard")


class DataFolder:
    """The folder that `callboard up` keeps everything in. Its files are for its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def create(self) -> None:
        """Make it, or take the one that is there; raises `ConfigurationError`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            (self.path / ".gitignore").write_text("*\n")
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be used as the data folder: {error.strerror}. "
                f"Move it away, or choose another one with --data-dir."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: a second `callboard up` on it raises `ConfigurationError`."""
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"Another `callboard up` is running on {self.path}. Stop it, or choose "
                    f"another folder with --data-dir."
                ) from error
            yield

    def subfolder(self, name: str) -> Path:
        """A folder in it, made when it is missing."""
        path = self.path / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.path / "log" / f"{name.lower()}.log"

    def write(self, name: str, text: str) -> Path:
        """Write a file that only its owner can read, whole or not at all."""
        target = self.path / name
        draft = target.with_name(f"{target.name}.new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        draft.replace(target)
        return target

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object from a file; None where there is no file."""
        path = self.path / name
        try:
            value = json.loads(path.read_text())
            if isinstance(value, dict):
                return value
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{_damaged(path)} ({error})") from error
        raise ConfigurationError(_damaged(path))


def _damaged(path: Path) -> str:
    return f"{path} is damaged. Move the data folder {path.parent} away and start again."
