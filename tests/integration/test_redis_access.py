"""TLS and access lists of Redis, by every part that connects to it: on a server with TLS."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kombu.exceptions
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ended_runs import ACTIONS
from flower.utils.broker import Broker

from callboard.cli.doctor import _broker
from callboard.connections.redis import connect, evicts
from callboard.errors import BrokerUnavailable, ServiceUnavailable
from callboard.registry import Registry
from callboard.settings import Settings, get_settings
from callboard.stack.ports import free_port
from callboard.stack.process import Program
from callboard.stack.ready import redis_answers
from callboard.stack.supervisor import Supervisor
from worker.celery_app import create_app

PASSWORD = "p@ss:w/rd#?+&%é[] "
REGISTRY = Registry(actions={action.name: action for action in ACTIONS})
ENCODED = quote(PASSWORD, safe="")


class Authority:
    """A certificate authority in a folder: ``ca.pem``, and what it signs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(folder.name)
        self.file = self._write("ca", self._sign(self._name, self._key, None), self._key)

    def issue(self, host: str) -> Path:
        """A file with a key and the certificate of ``host``."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(host, self._sign(_name(host), key, host), key)

    def _sign(self, subject: x509.Name, key: Any, host: str | None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            names = [_general_name(host)]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate, key: Any) -> Path:
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file = self._folder / f"{name}.pem"
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


@pytest.fixture(scope="module")
def serve(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[..., str]
) -> Iterator[Callable[..., int]]:
    """Start a Redis: ``serve("--requirepass", ..., url=...)``; the port, once it answers."""
    binary, folder = program("redis-server"), tmp_path_factory.mktemp("redis")
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor())

        def start(flags: Callable[[int], list[str]], url: str) -> int:
            port = free_port()
            command = [binary, "--dir", str(folder), "--save", "", *flags(port)]
            server = Program(
                name="Redis",
                command=command,
                log=folder / f"{port}.log",
                ready=lambda: redis_answers(url.format(port=port)),
            )
            supervisor.wait_ready([supervisor.start(server)], 20)
            return port

        yield start


@pytest.fixture(scope="module")
def tls_port(authority: Authority, serve: Callable[..., int]) -> int:
    """The port of a server that speaks TLS only, with the certificate of 127.0.0.1."""
    pair = str(authority.issue("127.0.0.1"))
    files = ["--tls-cert-file", pair, "--tls-key-file", pair, "--tls-ca-cert-file"]
    flags = [*files, str(authority.file), "--tls-auth-clients", "optional"]
    return serve(
        lambda port: ["--tls-port", str(port), "--port", "0", "--requirepass", PASSWORD, *flags],
        f"rediss://:{ENCODED}@127.0.0.1:{{port}}/0?ssl_ca_certs={authority.file}",
    )


@contextmanager
def connected(settings: Settings) -> Iterator[redis.Redis]:
    client = connect(settings)
    try:
        yield client
    finally:
        client.connection_pool.disconnect()


def _by_the_api(settings: Settings) -> None:
    with connected(settings) as client:
        client.ping()


def _by_the_worker_and_beat(settings: Settings) -> None:
    with create_app(settings, REGISTRY).connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def _by_flower(settings: Settings) -> None:
    app = create_app(settings, REGISTRY)
    with app.connection() as connection:
        uri = connection.as_uri(include_password=True)
    options = {
        "broker_options": app.conf.broker_transport_options,
        "broker_use_ssl": app.conf.broker_use_ssl,
    }

    async def ask() -> None:
        async with Broker(uri, **options).redis as client:
            await client.ping()

    asyncio.run(ask())


def _by_doctor(_: Settings) -> None:
    assert _broker().startswith("answers")


parts = pytest.mark.parametrize(
    "ask", [_by_the_api, _by_the_worker_and_beat, _by_flower, _by_doctor]
)
NO_ACCESS = (
    redis.RedisError,
    kombu.exceptions.OperationalError,
    BrokerUnavailable,
    ServiceUnavailable,
)


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Settings]]:
    """The settings with this REDIS_URL; of this process, too."""

    def make(redis_url: str) -> Settings:
        given = {
            "REDIS_URL": redis_url,
            "MONGODB_URI": "mongodb://127.0.0.1:1/none?serverSelectionTimeoutMS=1",
            "SECRET_KEY": "k" * 40,
            "JWT_SECRET": "j" * 40,
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return get_settings()

    yield make
    get_settings.cache_clear()


@parts
@pytest.mark.parametrize("options", ["", "&ssl_cert_reqs=required&ssl_check_hostname=true"])
def test_a_server_of_our_authority_is_reached(settings_of, tls_port, authority, ask, options):
    url = f"rediss://:{ENCODED}@127.0.0.1:{tls_port}/0?ssl_ca_certs={authority.file}{options}"
    ask(settings_of(url))


@parts
def test_one_without_an_authority_or_of_another_is_not(settings_of, tls_port, tmp_path, ask):
    other = Authority(tmp_path / "other")
    for options in ("", f"?ssl_ca_certs={other.file}"):
        with pytest.raises(NO_ACCESS, match=r"(?i)certificate"):
            ask(settings_of(f"rediss://:{ENCODED}@127.0.0.1:{tls_port}/0{options}"))


@parts
def test_one_under_another_name_is_not_unless_that_is_asked_for(
    settings_of, tls_port, authority, ask
):
    url = f"rediss://:{ENCODED}@localhost:{tls_port}/0?ssl_ca_certs={authority.file}"
    with pytest.raises(NO_ACCESS, match=r"(?i)certificate"):
        ask(settings_of(url))
    ask(settings_of(f"{url}&ssl_check_hostname=false"))


@parts
def test_a_client_shows_its_own_certificate(settings_of, tls_port, authority, ask):
    pair = authority.issue("client")
    files = f"ssl_ca_certs={authority.file}&ssl_certfile={pair}&ssl_keyfile={pair}"
    ask(settings_of(f"rediss://:{ENCODED}@127.0.0.1:{tls_port}/0?{files}"))


@pytest.fixture(scope="module")
def user_port(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., int]) -> int:
    """The port of a server whose only user may do what hosted servers allow."""
    users = tmp_path_factory.mktemp("users") / "users.acl"
    users.write_text("user default off\nuser a:pp on >a%pw ~* &* +@all -@dangerous -@admin\n")
    flags = ["--aclfile", str(users)]
    url = "redis://a%3App:a%25pw@127.0.0.1:{port}/0"
    return serve(lambda port: ["--port", str(port), *flags], url)


@parts
def test_a_user_without_dangerous_commands_is_enough(settings_of, user_port, ask):
    ask(settings_of(f"redis://a%3App:a%25pw@127.0.0.1:{user_port}/1"))


def test_what_a_server_does_not_say_is_told(settings_of, user_port):
    with connected(settings_of(f"redis://a%3App:a%25pw@127.0.0.1:{user_port}/1")) as client:
        assert evicts(client) is None
    assert "answers; its maxmemory-policy cannot be read" in _broker()


def test_a_server_that_may_throw_runs_away_says_so(redis_client):
    assert evicts(redis_client) == ""
    redis_client.config_set("maxmemory", 10**9, "maxmemory-policy", "allkeys-lru")
    try:
        assert evicts(redis_client) == "maxmemory 1000000000 and maxmemory-policy allkeys-lru"
    finally:
        redis_client.config_set("maxmemory", 0, "maxmemory-policy", "noeviction")
