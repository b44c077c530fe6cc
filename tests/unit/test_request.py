"""A head that is read in one step says the same as gunicorn reads in it line by line."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given, settings, strategies as st

from api.server.request import PlainRequest

PEER = ("127.0.0.1", 4242)
BEHIND = b"GET /behind HTTP/1.1\r\nHost: x\r\n\r\n"
CALL = (
    b"POST /api/actions/sayHello?a=b%20c HTTP/1.1\r\nHost: api.example.com:8000\r\n"
    b"Accept-Encoding: gzip, deflate\r\nauthorization: Bearer a.b-c._d\r\nX-Empty:\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


def _config(**said: Any) -> Config:
    config = Config()
    for name, value in said.items():
        config.set(name, value)
    return config


CONFIG = _config(secure_scheme_headers={}, limit_request_field_size=8256)


def _read(kind: type[Request], sent: list[bytes], config: Any = CONFIG) -> Any:
    return kind(config, IterUnreader(sent), PEER, 1)


def _said(request: Request) -> tuple[Any, ...]:
    """All that the server looks at in a request, and what comes behind it."""
    return (
        *(request.method, request.uri, request.path, request.query, request.fragment),
        *(request.version, request.headers, list(request.trailers), request.scheme),
        *(request.should_close(), request._expected_100_continue, request.proxy_protocol_info),
        *(request.peer_addr, request.remote_addr, request.req_number),
        *(request.body.read(), request.unreader.read()),
    )


@pytest.mark.parametrize(
    "sent",
    [
        CALL,
        CALL + BEHIND,
        BEHIND,
        CALL.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"),
        CALL.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
        CALL.replace(b"?a=b%20c", b"?"),
    ],
)
def test_the_usual_head_is_read_in_one_step(sent: bytes) -> None:
    request = _read(PlainRequest, [sent])
    assert request.is_usual
    assert _said(request) == _said(_read(Request, [sent, b""]))


def test_a_body_may_come_later_and_what_is_behind_it_too() -> None:
    head, body = CALL.replace(b"Length: 2", b"Length: 10")[:-2], b"0123456789"
    for sent in ([head, body + BEHIND], [head + body[:3], body[3:], BEHIND]):
        request = _read(PlainRequest, sent)
        assert request.is_usual
        assert (request.body.read(), request.unreader.read()) == (body, BEHIND)


@pytest.mark.parametrize(
    "said",
    [
        {"limit_request_line": 40},
        {"limit_request_fields": 5},
        {"limit_request_field_size": 100},
        {"secure_scheme_headers": {"X-FORWARDED-PROTO": "https"}},
    ],
)
def test_what_settings_say_about_heads_is_gunicorns_to_see_to(said: dict[str, Any]) -> None:
    config = _config(**{"secure_scheme_headers": {}, **said})
    try:
        assert not _read(PlainRequest, [CALL], config).is_usual
    except ParseException as error:
        with pytest.raises(type(error)):
            _read(Request, [CALL], config)


_NAMES = st.sampled_from(
    [
        *(b"Host", b"host", b"Content-Length", b"Content-Type", b"Connection", b"Authorization"),
        *(b"Transfer-Encoding", b"Upgrade", b"Expect", b"X-A", b"X_A", b"X-A ", b"", b"X\xdf"),
    ]
)
_VALUES = st.one_of(
    st.sampled_from(
        [b"x", b"2", b"05", b"", b"close", b"100-continue", b"chunked", b"h2c", b"x:1"]
    ),
    st.text("aZ \t\r\n\0\x7f\xff:,", max_size=4).map(lambda text: text.encode("latin-1")),
)
_TARGETS = st.one_of(
    st.sampled_from(
        [b"/", b"//a", b"/a?b", b"/a?b?c", b"/a#b", b"/?#", b"*", b"http://x/a", b"x:1"]
    ),
    st.text("/a?#%:@[]\\ \xff\0", max_size=6).map(lambda text: b"/" + text.encode("latin-1")),
)
_HEADS = st.builds(
    lambda method, target, version, fields, end: (
        b"%b %b %b\r\n" % (method, target, version)
        + b"".join(b"%b:%b\r\n" % field for field in fields)
        + end
    ),
    st.sampled_from([b"GET", b"POST", b"CONNECT", b"get", b"PROPFIND"]),
    _TARGETS,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2"]),
    st.lists(st.tuples(_NAMES, st.sampled_from([b"x", b" x "]) | _VALUES), max_size=4).map(
        lambda fields: [(b"Host", b" x"), *fields]
    ),
    st.sampled_from([b"\r\n{}", b"\r\n", b"\n", b"\r\n{}" + BEHIND]),
)


@settings(max_examples=2000, deadline=None)
@given(_HEADS)
def test_no_head_says_anything_else_than_to_gunicorn(sent: bytes) -> None:
    try:
        request = _read(PlainRequest, [sent])
    except (ParseException, NoMoreData):  # it is gunicorn's, and refused
        return
    if request.is_usual:
        assert _said(request) == _said(_read(Request, [sent]))
