"""`callboard init`: the files of a new application."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from callboard.errors import ConfigurationError
from callboard.layout import shipped

__all__ = ["init"]

_HERE = "cli/project"
_FIRST_ACTION = ("actions/__init__.py", "actions/greetings.py", "tests/test_greetings.py")
_FILES = ("pyproject.toml", "Dockerfile", "README.md")
_HIDDEN = {"dockerignore": ".dockerignore", "gitignore": ".gitignore"}
_OF_THE_REPOSITORY = {  # the same for every application; name in the wheel -> in the repository
    "Procfile": "Procfile",
    "docker-compose.yml": "docker-compose.yml",
    "env.example": ".env.example",
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> None:
    """Write a new application into FOLDER (this one): an action, its test, and what runs them.

    No file that exists is changed.
    """
    files = _application(folder)
    if (folder / "actions").exists():
        files = {name: text for name, text in files.items() if name not in _FIRST_ACTION}
        click.echo("left   actions/ (it exists)")
    for name, text in files.items():
        written = _write(folder / name, text)
        click.echo(f"wrote  {name}" if written else f"left   {name} (it exists)")
    if ".env" not in (folder / ".gitignore").read_text().split():
        click.echo("Add .env to .gitignore: it holds secrets.")
    enter = "" if folder == Path() else f"cd {folder} && "
    click.echo(f"\nNext: {enter}callboard up")


def _application(folder: Path) -> dict[str, str]:
    """Path -> text of each file."""
    here = {name: name for name in (*_FIRST_ACTION, *_FILES)} | _HIDDEN
    sources = {target: shipped(f"{_HERE}/{name}", f"callboard/{_HERE}/{name}")
               for name, target in here.items()}  # fmt: skip
    for name, target in _OF_THE_REPOSITORY.items():
        sources[target] = shipped(f"{_HERE}/{name}", target)
    name = _project_name(folder)
    return {
        target: path.read_text()
        .replace("my-application", name)
        .replace("image: callboard\n", f"image: {name}\n")
        for target, path in sources.items()
    }


def _project_name(folder: Path) -> str:
    """The folder's name as a package may be called; not the one that it depends on."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().resolve().name.lower()).strip("-")
    return name if name and name != "callboard" else f"{name}-application".lstrip("-")


def _write(path: Path, text: str) -> bool:
    """Write a new file; False where it exists already."""
    if os.path.lexists(path):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
    return True
