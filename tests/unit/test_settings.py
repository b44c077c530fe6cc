"""Settings: what is required, what is refused, and that all mistakes come in one message."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from callboard.errors import ConfigurationError
from callboard.settings import DEVELOPMENT_SECRET, PRIVATE_VARIABLES, load_settings

RIGHT = {
    "REDIS_URL": "redis://:secret@127.0.0.1:6379/0",
    "MONGODB_URI": "mongodb://127.0.0.1:27017/app",
    "SECRET_KEY": "k" * 32,
    "JWT_SECRET": "j" * 32,
}


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch):
    """Settle the whole environment of the settings: the right one, with changes."""

    def settle(**changes: str | None) -> None:
        for name in ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "CALLBOARD_ENV", "CALLBOARD_WAIT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**RIGHT, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return settle


def test_the_four_required_variables_are_enough(setenv):
    setenv()
    settings = load_settings()
    assert (settings.env, settings.actions, settings.wait) == ("production", "actions", 45.0)
    assert settings.algorithms == ("HS256",)


def test_settings_are_frozen(setenv):
    setenv()
    with pytest.raises(ValidationError):
        load_settings().wait = 1.0


def test_every_mistake_is_told_in_one_message(setenv):
    setenv(REDIS_URL=None, MONGODB_URI="mongodb://host", SECRET_KEY="short", CALLBOARD_WAIT="soon")
    with pytest.raises(ConfigurationError) as told:
        load_settings()
    for name in ("REDIS_URL", "MONGODB_URI", "SECRET_KEY", "CALLBOARD_WAIT"):
        assert name in str(told.value)


def test_a_secret_is_never_part_of_a_message(setenv):
    setenv(SECRET_KEY="too-short-a-secret", REDIS_URL="http://:hidden@host")
    with pytest.raises(ConfigurationError) as told:
        load_settings()
    assert "too-short-a-secret" not in str(told.value)
    assert "hidden" not in str(told.value)


def test_an_empty_variable_is_unset(setenv):
    setenv(CALLBOARD_WAIT="", JWT_PUBLIC_KEY="")
    assert load_settings().wait == 45.0


@pytest.mark.parametrize(
    "changes", [{"JWT_SECRET": None}, {"JWT_JWKS_URL": "https://id.example/keys"}]
)
def test_exactly_one_key_verifies_tokens(setenv, changes):
    setenv(**changes)
    with pytest.raises(ConfigurationError, match="exactly one of JWT_SECRET"):
        load_settings()


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SECRET"])
def test_a_development_secret_is_refused_in_production(setenv, name):
    setenv(**{name: DEVELOPMENT_SECRET + "x" * 32})
    with pytest.raises(ConfigurationError, match=f"{name} is a development secret"):
        load_settings()


def test_a_development_secret_is_right_in_development(setenv):
    setenv(SECRET_KEY=DEVELOPMENT_SECRET + "x" * 32, CALLBOARD_ENV="development")
    assert load_settings().development


def test_an_algorithm_must_fit_the_kind_of_key(setenv):
    setenv(JWT_ALGORITHMS="RS256")
    with pytest.raises(ConfigurationError, match="RS256 does not fit JWT_SECRET"):
        load_settings()


def test_a_pem_key_is_no_shared_secret(setenv):
    setenv(JWT_SECRET="-----BEGIN PUBLIC KEY-----" + "x" * 32)
    with pytest.raises(ConfigurationError, match="JWT_PUBLIC_KEY"):
        load_settings()


def test_plain_http_is_refused_outside_loopback(setenv):
    setenv(JWT_SECRET=None, JWT_JWKS_URL="http://id.example/keys")
    with pytest.raises(ConfigurationError, match="must be https"):
        load_settings()


@pytest.mark.parametrize("option", ["w=1", "journal=false", "readPreference=secondaryPreferred"])
def test_a_database_that_may_lose_or_hide_writes_is_refused(setenv, option):
    name, _, given = option.partition("=")
    setenv(MONGODB_URI=f"mongodb://db.example/app?retryWrites=true&{option}")
    with pytest.raises(
        ConfigurationError, match=rf"MONGODB_URI: asks for {name}={given[:20]}.*needs"
    ):
        load_settings()


def test_a_database_that_is_asked_for_what_it_gets_is_right(setenv):
    setenv(MONGODB_URI="mongodb+srv://db.example/app?retryWrites=true&w=majority")
    load_settings()


def test_the_wait_cannot_be_longer_than_its_cap(setenv):
    setenv(CALLBOARD_WAIT="500")
    with pytest.raises(
        ConfigurationError, match=r"CALLBOARD_WAIT \(500 s\) is above CALLBOARD_MAX_WAIT \(120 s\)"
    ):
        load_settings()


@pytest.mark.parametrize("name", [*RIGHT, "JWT_PUBLIC_KEY", "APP_OWNER_JWT", "CALLBOARD_TOKEN"])
def test_secrets_are_private_variables(name):
    assert PRIVATE_VARIABLES.fullmatch(name)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, 1000),
        ({"CALLBOARD_MAX_CONNECTIONS_PER_ADDRESS": "5"}, 5),
        ({"CALLBOARD_MAX_CONNECTIONS_PER_ADDRESS": "0"}, None),
        ({"CALLBOARD_TRUSTED_PROXIES": "1"}, None),  # its clients come from its address
    ],
)
def test_an_address_has_a_bounded_number_of_connections(setenv, changes, bound):
    setenv(**changes)
    assert load_settings().connections_per_address == bound


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("http://app.internal:8080/call.board/v1/", "http://app.internal:8080/call.board/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("", None),
    ],
)
def test_where_others_reach_the_api(setenv, given, url):
    setenv(CALLBOARD_PUBLIC_URL=given)
    assert load_settings().public_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("app.example.com", "ftp://app.example.com", "https://", "https:///a", "HTTPS://a"),
        *("https://u:p@a.example", "https://a.example?b=1", "https://a.example#b"),
        *("https://a.example:0", "https://a.example:99999", "https://a.example:x", "https://[::z]"),
        *("https://a.example//b", "https://a.example/../b", "https://a b.example", "https://\xe4"),
        *("https://a.example\n", "https://a.example/\t", "javascript:alert(1)"),
    ],
)
def test_what_is_no_public_url_is_refused(setenv, url):
    setenv(CALLBOARD_PUBLIC_URL=url)
    with pytest.raises(ConfigurationError, match="CALLBOARD_PUBLIC_URL"):
        load_settings()


def test_the_namespace_is_a_short_name(setenv):
    setenv()
    assert load_settings().keys.run("1") == "callboard:run:1"
    assert load_settings().keys.queue("reports") == "reports"
    setenv(CALLBOARD_NAMESPACE="shop_2-a")
    assert load_settings().keys.run("1") == "shop_2-a:run:1"
    assert load_settings().keys.queue("reports") == "shop_2-a:celery:reports"


@pytest.mark.parametrize("name", ["a:b", "shop*", "a b", "\xe4", "x" * 41, "a'b"])
def test_another_namespace_is_refused(setenv, name):
    setenv(CALLBOARD_NAMESPACE=name)
    with pytest.raises(ConfigurationError, match=r"CALLBOARD_NAMESPACE: .* is not 1 to 40 letters"):
        load_settings()
