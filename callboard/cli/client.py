"""`callboard client`: writes a typed client of this application."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from callboard.cli.call import DEFAULT_URL
from callboard.cli.development import adopt_running_stack, data_dir_option, token_option
from callboard.client.typescript import typescript_client
from callboard.errors import ConfigurationError, ServiceUnavailable

__all__ = ["client"]


@click.command()
@click.option("--lang", type=click.Choice(["ts"]), required=True, help="ts: TypeScript.")
@click.option("--url", help="The API; by default that of the running `callboard up`.")
@click.option(
    "--openapi",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with the OpenAPI document, instead of asking the API for it.",
)
@token_option
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Instead of standard output."
)
@data_dir_option
def client(
    lang: str,
    url: str | None,
    openapi: Path | None,
    token: str | None,
    out: Path | None,
    data_dir: Path,
) -> None:
    """Write a client whose types are those of the actions: one file, without dependencies."""
    if openapi is not None:
        document = _document(_read(openapi), str(openapi))
    else:
        running = adopt_running_stack(data_dir)
        document = _fetched(url or (running.url if running else DEFAULT_URL), token)
    try:
        text = typescript_client(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError("The OpenAPI document is not one of a Callboard") from error
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}") from error


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error


def _fetched(url: str, token: str | None) -> dict[str, Any]:
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx.get(f"{url.rstrip('/')}/api/openapi.json", headers=headers, timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceUnavailable(f"{url} does not answer: {error}") from error
    if response.status_code != 200:
        raise ConfigurationError(
            f"{url} answered {response.status_code} for its OpenAPI document. In production set "
            f"CALLBOARD_OPENAPI=true, or save the document and name it with --openapi."
        )
    return _document(response.text, url)


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
        if "paths" in document and "schemas" in document["components"]:
            return dict(document)
    except (ValueError, TypeError, KeyError):
        pass
    raise ConfigurationError(f"{source} holds no OpenAPI document of a Callboard")
