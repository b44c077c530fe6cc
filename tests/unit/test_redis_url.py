"""REDIS_URL: both clients get the same of it, or it is refused with the next step."""

from __future__ import annotations

import ssl

import pytest
from kombu import Connection

from callboard.connections.redis_url import RedisUrl

SECRET = "hunter"


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        (
            "redis://:p%40ss%3Aw%2Frd%23%3F%2B%26%25%C3%A9%5B%5D%20@h:1/2",
            None,
            "p@ss:w/rd#?+&%é[] ",
        ),
        ("redis://us%40er:p:w@h:1/2", "us@er", "p:w"),
        ("redis://user@h:1/2", "user", None),
        ("REDIS://h:1?db=2", None, None),
        ("redis://h:1/2/?protocol=3", None, None),
    ],
)
def test_both_clients_read_the_same(text, user, password):
    url = RedisUrl.parse(text)
    own = url.client_options()
    assert (own["host"], own["port"], own["db"], own["protocol"]) == ("h", 1, 2, 3)
    assert (own["username"], own["password"]) == (user, password)
    kombu = Connection(url.celery_options()["broker_url"])
    assert (kombu.hostname, kombu.port, int(kombu.virtual_host)) == ("h", 1, 2)
    assert (kombu.userid, kombu.password) == (user, password)


def test_an_address_of_version_6_is_one_for_both():
    url = RedisUrl.parse("redis://[::1]")
    assert (url.host, url.port, url.database) == ("::1", 6379, 0)
    assert Connection(url.celery_options()["broker_url"]).hostname == "::1"


@pytest.mark.parametrize(
    "query",
    ["", "?ssl_cert_reqs=required", "?ssl_cert_reqs=CERT_REQUIRED", "?SSL_CHECK_HOSTNAME=True"],
)
def test_a_server_is_verified_by_both(query):
    url = RedisUrl.parse(f"rediss://h{query}")
    for told in (url.client_options(), url.celery_options()["broker_use_ssl"]):
        assert told["ssl_cert_reqs"] == ssl.CERT_REQUIRED
        assert told["ssl_check_hostname"] is True


def test_the_options_of_tls_reach_both():
    query = "ssl_ca_certs=/a%20b&ssl_certfile=/c&ssl_keyfile=/d&ssl_min_version=TLSv1_3"
    url = RedisUrl.parse(f"rediss://h?{query}&ssl_check_hostname=false")
    expected = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": False,
        "ssl_ca_certs": "/a b",
        "ssl_certfile": "/c",
        "ssl_keyfile": "/d",
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
    }
    assert url.celery_options()["broker_use_ssl"] == expected
    assert expected.items() <= url.client_options().items()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rediss://h?ssl_cert_reqs=none", "ssl_cert_reqs=none: a server that is not verified"),
        ("rediss://h?ssl_cert_reqs=CERT_OPTIONAL", "ssl_cert_reqs=CERT_OPTIONAL"),
        ("rediss://h?ssl_check_hostname=false", "Name your own CA with ssl_ca_certs"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname=maybe"),
        ("rediss://h?ssl_keyfile=/k", "ssl_keyfile without ssl_certfile"),
        ("rediss://h?ssl_min_version=TLSv1", "TLSv1.2 or TLSv1.3"),
        ("redis://h?ssl_ca_certs=/c", "begin it with rediss://"),
        ("redis://h?socket_timeout=1", "option 'socket_timeout'"),
        ("redis://h?password=hunter", "option 'password'"),
        ("redis://h?protocol=2", "RESP3"),
        ("redis://h/1?db=2", "two databases"),
        ("redis://h?db=1&DB=1", "db twice"),
        ("redis://h?db=hunter", "no number"),
        ("redis://h/hunter", "must look like"),
        ("redis://h:99999", "must look like"),
        ("redis://h:hunter", "must look like"),
        ("redis://", "must look like"),
        ("h:6379", "must look like"),
        ("unix:///tmp/redis.sock", "must look like"),
        ("redis://:hun@ter:hunter/x@h:1/0", "percent-encode"),
        ("redis://:h@hunter@h:1/0", "percent-encode"),
        ("redis://:hunter#@h:1/0", "percent-encode"),
        ("redis://u:1?hunter@h:1/0", "percent-encode"),
        ("redis://:h[hunter]@h:1/0", "percent-encode"),
        ("redis://:hunter%zz@h:1/0", "percent-encode"),
        ("redis://:hunter x@h:1/0", "percent-encode"),
        ("redis://default:<hunter>@h:1/0", "placeholder"),
        ("redis://h:1/0\n", "must look like"),
    ],
)
def test_what_cannot_be_used_is_refused_without_a_word_of_the_password(text, told):
    with pytest.raises(ValueError, match=told) as refused:
        RedisUrl.parse(text)
    assert SECRET not in str(refused.value)


def test_nothing_secret_is_in_its_representation():
    text = repr(RedisUrl.parse("rediss://:hunter@h?ssl_certfile=/c&ssl_password=hunter"))
    assert SECRET not in text


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile"])
def test_a_file_that_cannot_be_used_is_named(option, tmp_path):
    (tmp_path / "damaged").write_text("no certificate")
    for name in ("missing", "damaged"):
        if (option, name) == ("ssl_ca_path", "damaged"):
            continue  # a folder of certificates is looked at when one is needed
        told = RedisUrl.parse(f"rediss://h?{option}={tmp_path}/{name}").unreadable()
        assert told
        assert f"{option} {tmp_path}/{name} cannot be used" in told
