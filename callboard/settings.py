"""The settings: read once from the environment, checked as a whole, then frozen.

Every mistake is told at start, all in one message, each naming its variable. An empty
variable is unset. A secret is never part of a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from callboard import tracing
from callboard.connections import mongodb_uri
from callboard.connections.keys import DEFAULT_NAMESPACE, Keys
from callboard.connections.redis_url import RedisUrl
from callboard.errors import ConfigurationError

__all__ = [
    "DEVELOPMENT_SECRET",
    "PRIVATE_VARIABLES",
    "Settings",
    "default_workers",
    "get_settings",
    "load_settings",
]

DEVELOPMENT_SECRET = "development-"  # noqa: S105 - a marker
"""What generated secrets begin with; refused in production."""

PRIVATE_VARIABLES = re.compile(
    r"SECRET_KEY|JWT_.*|APP_OWNER_JWT|REDIS_URL|MONGODB_URI|FLOWER_.*|CALLBOARD_TOKEN"
    r"|OTEL_EXPORTER_.*HEADERS"
)
"""The variables that a handler never sees in ``ctx.env`` (full match)."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_PUBLIC_URL = re.compile(
    r"https?://([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
    r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?"
)
KEY_VARIABLES = ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL")
SYMMETRIC = ("HS256",)
ASYMMETRIC = ("ES256", "RS256", "EdDSA")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


_PASSWORD = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")  # in an address


def _split(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _comma_list(value: object) -> object:
    return _split(value) if isinstance(value, str) else value


def _https_url(value: str) -> str:
    """An http(s) URL without credentials; plain http on loopback only."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http(s) URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("may hold no credentials, query or fragment")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("must be https outside loopback")
    return value.rstrip("/")


def _public_url(value: str) -> str:
    """Where others find the API: http(s), a host, perhaps a port and a path."""
    if not _PUBLIC_URL.fullmatch(value):
        raise ValueError("is not an http(s) URL such as https://app.example.com, without a query")
    try:
        port = urlsplit(value).port
    except ValueError as error:
        raise ValueError("names no host, or no port from 1 to 65535") from error
    if port == 0:
        raise ValueError("names no port from 1 to 65535")
    return value.rstrip("/")


def _upstreams(value: object) -> object:
    if not isinstance(value, str):
        return value
    upstreams: dict[str, str] = {}
    for entry in value.split(","):
        name, equals, url = entry.strip().partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise ValueError(f"entry {name!r} is not name=https://host")
        if name in upstreams:
            raise ValueError(f"names {name!r} twice")
        upstreams[name] = _https_url(url)
    return upstreams


def _redis_url(value: SecretStr) -> SecretStr:
    RedisUrl.parse(value.get_secret_value())
    return value


def _namespace(value: str) -> str:
    return Keys(value).namespace


def _mongodb_uri(value: SecretStr) -> SecretStr:
    mongodb_uri.check(value.get_secret_value())
    return value


def _secret_key(value: SecretStr) -> SecretStr:
    keys = _split(value.get_secret_value())
    if any(len(key) < 32 for key in keys):
        raise ValueError("each key of the list needs at least 32 characters")
    if len(set(keys)) != len(keys):
        raise ValueError("names one key twice")
    return value


def _jwt_secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < 32:
        raise ValueError("needs at least 32 bytes (RFC 7518 s. 3.2)")
    if "-----BEGIN" in value.get_secret_value():
        raise ValueError("is a PEM key: put a public key into JWT_PUBLIC_KEY")
    return value


def _public_key(value: str) -> str:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = value.replace("\\n", "\n")
    try:
        load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ValueError("is not a PEM public key (-----BEGIN PUBLIC KEY-----)") from error
    return pem


def _rate_limit(value: str) -> str:
    from limits import parse_many

    try:
        parse_many(value)
    except ValueError as error:
        raise ValueError('must look like 100/minute, or "10/second; 100/minute"') from error
    return value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    """Exact origins, as a browser sends them."""
    for value in values:
        if not _ORIGIN.fullmatch(value):
            raise ValueError(
                f"{value!r:.80} is not an origin such as https://app.example.com or "
                "capacitor://localhost"
            )
    return values


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]
Url = Annotated[str, AfterValidator(_https_url)]


def _variable(name: str, default: Any = None) -> Any:
    return Field(default=default, validation_alias=name)


class Settings(BaseSettings):
    """All settings; each field names its environment variable."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,  # for the table in docs/settings.md
    )

    # Where things are
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = _variable("REDIS_URL", ...)
    """The broker: `redis://[[user]:password@]host:port/0`, or `rediss://` for TLS."""
    mongodb_uri: Annotated[SecretStr, AfterValidator(_mongodb_uri)] = _variable("MONGODB_URI", ...)
    """The database: `mongodb://...` or `mongodb+srv://...`; its path names it."""
    namespace: Annotated[str, AfterValidator(_namespace)] = _variable(
        "CALLBOARD_NAMESPACE", DEFAULT_NAMESPACE
    )
    """Begins all names in Redis: applications on one Redis have one each. 1-40 of `A-Za-z0-9_-`."""
    actions: str = _variable("CALLBOARD_ACTIONS", "actions")
    """The actions package: an importable module."""
    env: Literal["production", "development"] = _variable("CALLBOARD_ENV", "production")
    """`callboard up` sets `development`; nothing else should."""

    # Secrets and identity
    secret_key: Annotated[SecretStr, AfterValidator(_secret_key)] = _variable("SECRET_KEY", ...)
    """Seals what a run carries. Keys of 32 characters or more: the first seals, all open."""
    jwt_secret: Annotated[SecretStr, AfterValidator(_jwt_secret)] | None = _variable("JWT_SECRET")
    """Verifies HS256 tokens; 32 bytes or more."""
    jwt_public_key: Annotated[str, AfterValidator(_public_key)] | None = _variable("JWT_PUBLIC_KEY")
    """Verifies ES256, RS256 or EdDSA tokens: PEM, also with literal `\\n`."""
    jwt_jwks_url: Url | None = _variable("JWT_JWKS_URL")
    """The issuer's key set; https outside loopback."""
    jwt_algorithms: CommaList = _variable("JWT_ALGORITHMS", ())
    """Narrows the algorithms that the kind of key allows."""
    jwt_issuer: str | None = _variable("JWT_ISSUER")
    """What `iss` must be. Unset: not checked."""
    jwt_audience: str | None = _variable("JWT_AUDIENCE")
    """What `aud` must be or hold. Unset: not checked."""
    jwt_authorized_parties: CommaList = _variable("JWT_AUTHORIZED_PARTIES", ())
    """What `azp` may be, if it is there; `*` is one or more of letters, digits, `-` and `.`."""
    jwt_leeway: Annotated[float, Field(ge=0, le=300)] = _variable("JWT_LEEWAY", 5.0)
    """Seconds by which clocks may differ."""
    owner_user_id: Annotated[str, Field(max_length=255)] | None = _variable("OWNER_USER_ID")
    """The owner's `sub`. Unset: `owner_only` refuses everyone, no schedule may exist."""
    app_owner_jwt: SecretStr | None = _variable("APP_OWNER_JWT")
    """The token that pays for integrations billed to `developer`."""

    # What actions may reach
    integrations_url: Url | None = _variable("INTEGRATIONS_URL")
    """The gateway behind `ctx.tools.integration`; https outside loopback."""
    upstreams: Annotated[dict[str, str], NoDecode, BeforeValidator(_upstreams)] = Field(
        default_factory=dict, validation_alias="UPSTREAMS"
    )
    """What `ctx.fetch` may reach: `name=https://host`, comma-separated."""

    # How calls wait and runs live (seconds)
    wait: Annotated[float, Field(gt=0)] = _variable("CALLBOARD_WAIT", 45.0)
    """Seconds that a call waits for its result unless it says otherwise."""
    max_wait: Annotated[float, Field(gt=0)] = _variable("CALLBOARD_MAX_WAIT", 120.0)
    """Seconds that a call may ask to wait."""
    recovery: Annotated[float, Field(ge=3, le=600)] = _variable("CALLBOARD_RECOVERY", 15.0)
    """Seconds after which a silent worker's run is another's."""
    stop_grace: Annotated[float, Field(ge=0)] = _variable("CALLBOARD_STOP_GRACE", 20.0)
    """Seconds that runs get to end when a process is told to stop."""
    result_ttl: Annotated[int, Field(ge=1)] = _variable("CALLBOARD_RESULT_TTL", 300)
    """Seconds that an ended run stays in Redis; then it is in the history alone."""

    keep_params: Annotated[int, Field(ge=0, le=30)] = _variable("CALLBOARD_KEEP_PARAMS", 30)
    """Days that the history keeps the params of runs, sealed, without the token. 0: none."""

    # Async actions
    async_runs: Annotated[int, Field(ge=1, le=10_000)] = _variable("CALLBOARD_ASYNC_RUNS", 500)
    """Runs of async actions that one process has at once."""
    async_processes: Annotated[int, Field(ge=1, le=64)] = _variable("CALLBOARD_ASYNC_PROCESSES", 1)
    """Processes of a worker for async actions, beside those for plain ones. None without any."""

    park_after: Annotated[float, Field(ge=0, le=60)] = _variable("CALLBOARD_PARK_AFTER", 2.0)
    """Seconds: a wait of an async handler that is longer ends its attempt, and holds no memory."""

    # Limits and the edge
    max_queue: Annotated[int, Field(ge=1)] = _variable("CALLBOARD_MAX_QUEUE", 10_000)
    """Messages in one queue, and runs that wait for one limit and key; above it calls get 503."""
    rate_limit: Annotated[str, AfterValidator(_rate_limit)] | None = _variable(
        "CALLBOARD_RATE_LIMIT"
    )
    """Calls per caller, and as many other requests: `10/second; 100/minute`. Unset: off."""
    cors_origins: Annotated[CommaList, AfterValidator(_origins)] = _variable(
        "CALLBOARD_CORS_ORIGINS", ()
    )
    """Browser origins that may call: `https://app.example.com,capacitor://localhost`."""
    public_url: Annotated[str, AfterValidator(_public_url)] | None = _variable(
        "CALLBOARD_PUBLIC_URL"
    )
    """Where others reach the API: `https://app.example.com`. `ctx.signal_url` begins with it."""
    trusted_proxies: Annotated[int, Field(ge=0)] = _variable("CALLBOARD_TRUSTED_PROXIES", 0)
    """Proxies in front of the API whose `X-Forwarded-*` headers are believed."""
    max_connections_per_address: Annotated[int, Field(ge=0)] = _variable(
        "CALLBOARD_MAX_CONNECTIONS_PER_ADDRESS", 1000
    )
    """Connections of an address to an API process; 0: any number. See [Deploying](deploying.md)."""

    # What else is served; unset: in development only
    metrics: bool | None = _variable("CALLBOARD_METRICS")
    """Serve `/metrics`. Unset: in development only."""
    openapi: bool | None = _variable("CALLBOARD_OPENAPI")
    """Serve `/api/openapi.json`. Unset: in development only."""
    docs: bool | None = _variable("CALLBOARD_DOCS")
    """Serve `/docs`. Unset: in development only."""
    console: bool | None = _variable("CALLBOARD_CONSOLE")
    """Serve the console at `/`. Unset: in development only."""

    @property
    def development(self) -> bool:
        """Whether `callboard up` started this process."""
        return self.env == "development"

    @property
    def connections_per_address(self) -> int | None:
        """How many connections an address may have; None: any number."""
        return None if self.trusted_proxies else self.max_connections_per_address or None

    def serves(self, page: Literal["metrics", "openapi", "docs", "console"]) -> bool:
        """Whether the API shows this page."""
        chosen: bool | None = getattr(self, page)
        return self.development if chosen is None else chosen

    @property
    def of_accepting(self) -> dict[str, int]:
        """What `Runs.accept` is told of them."""
        return {"max_queue": self.max_queue, "result_ttl": self.result_ttl}

    @property
    def keys(self) -> Keys:
        """The application's names in Redis."""
        return Keys(self.namespace)

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The keys: the first seals, all open."""
        return _split(self.secret_key.get_secret_value())

    @property
    def secrets(self) -> tuple[str, ...]:
        """Whatever of these settings must not be shown: keys, tokens, and addresses' passwords."""
        values = [value for _, value in self if isinstance(value, SecretStr)]
        texts = [value.get_secret_value() for value in values]
        passwords = [part for text in texts for part in _PASSWORD.findall(text)]
        keys = [text for text in texts if "://" not in text]
        return tuple({*keys, *self.secret_keys, *passwords, *map(unquote, passwords)})

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The JWT algorithms that are accepted: JWT_ALGORITHMS, or all that fit the key."""
        return self.jwt_algorithms or _fitting(
            "JWT_SECRET" if self.jwt_secret else "JWT_PUBLIC_KEY"
        )


def load_settings() -> Settings:
    """Read the environment; raises `ConfigurationError` with every mistake in one text."""
    mistakes: list[str] = []
    settings = None
    try:
        settings = Settings()
    except ValidationError as error:
        mistakes += [_told(row) for row in error.errors()]
    mistakes += tracing.mistakes(os.environ)
    mistakes += _unreadable(settings)
    mistakes += _across({name: value for name, value in os.environ.items() if value})
    if settings and settings.wait > settings.max_wait:
        mistakes.append(
            f"CALLBOARD_WAIT ({settings.wait:g} s) is above "
            f"CALLBOARD_MAX_WAIT ({settings.max_wait:g} s)"
        )
    if settings and not mistakes:
        return settings
    listed = "\n".join(f"  - {line}" for line in mistakes)
    raise ConfigurationError(f"The settings are not right:\n{listed}")


def _unreadable(settings: Settings | None) -> Iterator[str]:
    """The files that are named, and cannot be used."""
    if settings is None:
        return
    if told := RedisUrl.parse(settings.redis_url.get_secret_value()).unreadable():
        yield f"REDIS_URL: {told}"
    if told := mongodb_uri.unreadable(settings.mongodb_uri.get_secret_value()):
        yield f"MONGODB_URI: {told}"


def _across(variables: Mapping[str, str]) -> Iterator[str]:
    """The rules that span variables. They read the raw text, so that a mistake in one
    variable does not hide those of others."""
    given = [name for name in KEY_VARIABLES if name in variables]
    if len(given) != 1:
        yield (
            f"set exactly one of {', '.join(KEY_VARIABLES)} "
            f"({' and '.join(given) if given else 'none'} is set)"
        )
    elif wrong := set(_split(variables.get("JWT_ALGORITHMS", ""))) - set(_fitting(given[0])):
        yield (
            f"JWT_ALGORITHMS: {', '.join(sorted(wrong))} does not fit {given[0]}; "
            f"allowed: {', '.join(_fitting(given[0]))}"
        )
    if variables.get("CALLBOARD_ENV") != "development":
        for name in ("SECRET_KEY", "JWT_SECRET"):
            if any(part.startswith(DEVELOPMENT_SECRET) for part in _split(variables.get(name, ""))):
                yield f"{name} is a development secret: generate one for production"


def _fitting(key_variable: str) -> tuple[str, ...]:
    """The algorithms that fit a kind of key; a symmetric one never fits a public key."""
    return SYMMETRIC if key_variable == "JWT_SECRET" else ASYMMETRIC


def _told(row: Any) -> str:
    """One pydantic error as a line that names the variable."""
    text = row["msg"].removeprefix("Value error, ")
    if row["type"] == "missing":
        text = "is required (`callboard up` sets it for you on a development machine)"
    return f"{row['loc'][0]}: {text}"


@cache
def get_settings() -> Settings:
    """The settings of this process."""
    return load_settings()


def default_workers() -> int:
    """Child processes of the worker when nobody says: two per core.

    A handler mostly waits for the database. With one per core the cores idle meanwhile, and
    writes that could share a disk's sync do not meet.
    """
    return 2 * (os.cpu_count() or 1)
