"""REDIS_URL: read in one place, for redis-py and for Celery.

The two libraries read such a URL differently: what one verifies, the other takes unverified. So
neither gets to see it: both get what was made of it here.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote

from callboard.connections.url import ENCODED, ConnectionUrl

__all__ = ["RedisUrl"]

EXAMPLE = "redis://[[user]:password@]host[:port][/database], or rediss://... for TLS"
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,@]+)(?::(?P<port>[0-9]{1,5}))?")
_DATABASE = re.compile(r"/?|/(?P<number>[0-9]{1,5})/?")
_NAME = re.compile(r"[A-Za-z_]{1,40}")  # of an option that a message may show
_VERSIONS = {"tlsv1.2": 771, "771": 771, "tlsv1.3": 772, "772": 772}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A Redis server and how it is reached."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None = field(repr=False)
    tls: Mapping[str, Any] | None = field(repr=False)  # redis-py's names, which Celery shares

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with what is wrong and the next step; nothing secret is in it."""
        url = ConnectionUrl.parse(text, EXAMPLE)
        host, path = _HOST.fullmatch(url.hosts), _DATABASE.fullmatch(url.path)
        if url.scheme not in ("redis", "rediss"):
            raise ValueError(f"must look like {EXAMPLE}")
        if not host or not path or "@" in url.query or int(host["port"] or 6379) not in _PORTS:
            raise ValueError(f"must look like {EXAMPLE}; {ENCODED}")
        options = _options(url.query)
        return cls(
            host=unquote(host["host"].strip("[]")),
            port=int(host["port"] or 6379),
            database=_database(path["number"], options.pop("db", None)),
            username=url.username,
            password=url.password,
            tls=_tls(options, encrypted=url.scheme == "rediss"),
        )

    def client_options(self) -> dict[str, Any]:
        """What redis-py's connections are made with."""
        import redis

        kind = redis.Connection if self.tls is None else redis.SSLConnection
        return {
            "connection_class": kind,
            "host": self.host,
            "port": self.port,
            "db": self.database,
            "username": self.username,
            "password": self.password,
            "protocol": 3,  # replies and messages share a connection
            **(self.tls or {}),
        }

    def celery_options(self) -> dict[str, Any]:
        """Celery's settings of its broker, which Flower reads, too."""
        scheme = "redis" if self.tls is None else "rediss"
        user, password = (quote(part or "", safe="") for part in (self.username, self.password))
        access = f"{user}:{password}@" if user or password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {
            "broker_url": f"{scheme}://{access}{host}:{self.port}/{self.database}",
            "broker_use_ssl": None if self.tls is None else dict(self.tls),
        }

    def unreadable(self) -> str | None:
        """Why the files that it names cannot be used; None where they can."""
        tls = dict(self.tls or {})
        files = [name for name in _FILES if name in tls]
        try:
            context = ssl.create_default_context()
            if "ssl_ca_path" in tls:
                os.listdir(tls["ssl_ca_path"])  # OpenSSL looks only when it needs one
            if "ssl_ca_certs" in tls or "ssl_ca_path" in tls:
                context.load_verify_locations(tls.get("ssl_ca_certs"), tls.get("ssl_ca_path"))
            if "ssl_certfile" in tls:
                # a callable, because without a password OpenSSL would ask the terminal for one
                password = tls.get("ssl_password") or ""
                context.load_cert_chain(
                    tls["ssl_certfile"], tls.get("ssl_keyfile"), lambda: password
                )
        except (OSError, ValueError) as error:
            listed = ", ".join(f"{name} {tls[name]}" for name in files)
            return f"{listed} cannot be used: {getattr(error, 'strerror', None) or error}"
        return None


_PORTS = range(1, 65536)


def _options(query: str) -> dict[str, str]:
    """Names in lower case -> values; raises ValueError for a name that not both clients know."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        known = name.lower()
        if known not in _KNOWN:
            shown = f"option {name!r}" if _NAME.fullmatch(name) else "an option"
            raise ValueError(
                f"has {shown} that not every part of Callboard knows; leave it out "
                f"(known: {', '.join(_KNOWN)}; timeouts and pools are set by Callboard)"
            )
        if known in options:
            raise ValueError(f"names the option {known} twice")
        options[known] = value
    if options.pop("protocol", "3") != "3":
        raise ValueError("asks for another protocol than 3 (RESP3), which Callboard needs")
    return options


def _database(path: str | None, option: str | None) -> int:
    if option is not None and not re.fullmatch("[0-9]{1,5}", option):
        raise ValueError("has an option db that is no number")
    if path is not None and option is not None and int(path) != int(option):
        raise ValueError(f"names two databases, {path} in its path and {option} with db")
    return int(path or option or 0)


def _tls(options: Mapping[str, str], *, encrypted: bool) -> Mapping[str, Any] | None:
    """The options of a TLS connection; None where it is not one."""
    if not encrypted:
        if options:
            raise ValueError(
                f"has {', '.join(options)}, which needs TLS: begin it with rediss:// instead"
            )
        return None
    tls: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    tls |= {name: _KNOWN[name](name, value) for name, value in options.items()}
    if not tls["ssl_check_hostname"] and not {"ssl_ca_certs", "ssl_ca_path"} & tls.keys():
        raise ValueError(
            "has ssl_check_hostname=false: any holder of a public certificate could answer. Name "
            "your own CA with ssl_ca_certs, or leave it out"
        )
    if ("ssl_keyfile" in tls or "ssl_password" in tls) and "ssl_certfile" not in tls:
        raise ValueError("has ssl_keyfile without ssl_certfile, the certificate that it belongs to")
    return MappingProxyType(tls)


def _required(name: str, value: str) -> ssl.VerifyMode:
    if value.lower().removeprefix("cert_") != "required":
        raise ValueError(
            f"has {name}={_shown(value)}: a server that is not verified would get the password. "
            f"Leave it out, and name the server's CA with ssl_ca_certs where it is your own"
        )
    return ssl.CERT_REQUIRED


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise ValueError(f"has {name}={_shown(value)}, which is neither true nor false")
    return _BOOLEANS[value.lower()]


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _version(name: str, value: str) -> int:
    version = _VERSIONS.get(value.lower().replace("_", "."))
    if version is None:
        raise ValueError(f"has {name}={_shown(value)}: TLSv1.2 or TLSv1.3 can be asked for")
    return version


def _text(name: str, value: str) -> str:
    if not value:
        raise ValueError(f"has {name} without a value")
    return value


def _shown(value: str) -> str:
    """A value of a few fixed ones, as a message may show it."""
    return value if _NAME.fullmatch(value) else "..."


_KNOWN: Mapping[str, Callable[[str, str], Any]] = {
    "ssl_cert_reqs": _required,
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_password": _text,
    "ssl_min_version": _version,
    "ssl_ciphers": _text,
    "db": _text,
    "protocol": _text,
}
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
