"""Ports of this machine."""

from __future__ import annotations

import errno
import socket

from callboard.errors import ConfigurationError

__all__ = ["api_url", "free_port", "require_free"]


def free_port() -> int:
    """A port of 127.0.0.1 that is free now; who starts a server on it retries on a clash."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def api_url(host: str, port: int) -> str:
    """Where an API that is bound so answers on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def require_free(host: str, port: int, option: str) -> None:
    """Raise `ConfigurationError`, naming the option that moves it, unless ``port`` can be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"Port {port} of {host} is in use. Stop the program that listens there, "
                    f"or choose another port with {option}."
                ) from error
            raise ConfigurationError(
                f"Cannot listen on {host} port {port}: {error.strerror}. Choose others with "
                f"--host and {option}."
            ) from error
