"""Tokens against the running API: an attack corpus for each kind of key; none is accepted."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask import Flask, Response
from local_http import scripted, served

from api import create_app
from api.identity import jwks
from callboard import action, ok
from callboard.errors import IssuerUnavailable
from callboard.processes import threads
from callboard.registry import Registry
from callboard.settings import Settings

SECRET = "a-test-secret-of-at-least-32-bytes"
ISSUER, AUDIENCE, PARTY = "https://issuer.test", "callboard-tests", "https://*.app.test"
PRIVATE: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KINDS = ["HS256", *PRIVATE, "JWKS"]


@action
def never_run(ctx: Any) -> Any:
    return ok()


def public_pem(algorithm: str) -> str:
    return (
        PRIVATE[algorithm]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class Issuer:
    """A local key set over HTTP that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = False
        self.keys = [self.key("known", "ES256")]

    @staticmethod
    def key(kid: str, algorithm: str, **fields: Any) -> dict[str, Any]:
        kinds = {"ES256": jwt.algorithms.ECAlgorithm, "RS256": jwt.algorithms.RSAAlgorithm}
        public = json.loads(kinds[algorithm].to_jwk(PRIVATE[algorithm].public_key()))
        return {**public, "kid": kid, "use": "sig", **fields}

    def app(self) -> Flask:
        app = Flask("issuer")

        @app.route("/", defaults={"path": ""})
        @app.route("/<path:path>")
        def answer(path: str) -> Response:
            self.asked.append(path)
            if self.down:
                return Response(status=503)
            return Response(json.dumps({"keys": self.keys}), mimetype="application/json")

        return app


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def issuer_url(issuer: Issuer) -> Iterator[str]:
    with served(issuer.app()) as url:
        yield url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(
    kind: str, redis_url: str, issuer_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Send]:
    """Sends a token to an API that verifies with this kind of key."""
    key = {
        "HS256": {"JWT_SECRET": SECRET},
        "JWKS": {"JWT_JWKS_URL": f"{issuer_url}/keys"},
    }.get(kind) or {"JWT_PUBLIC_KEY": public_pem(kind)}
    variables = {
        "REDIS_URL": redis_url,
        "MONGODB_URI": "mongodb://127.0.0.1:1/never",
        "SECRET_KEY": "k" * 40,
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
        "JWT_AUTHORIZED_PARTIES": PARTY,
        **key,
    }
    settings = Settings(**variables)
    app = create_app(settings, Registry(actions={"neverRun": never_run}))
    with served(app) as url, httpx.Client(base_url=url) as client:

        def send(token: str | None, headers: Any = None) -> httpx.Response:
            given = headers or ([("Authorization", f"Bearer {token}")] if token else [])
            return client.post(
                "/api/actions/neverRun", headers=[*given, ("Prefer", "respond-async")]
            )

        send.ready = lambda: client.get("/readyz")  # type: ignore[attr-defined]
        yield send


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with these changes; None leaves one out."""
    now = int(time.time())
    good = {"sub": "alice", "exp": now + 300, "iat": now, "iss": ISSUER, "aud": AUDIENCE}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(kind: str, content: dict[str, Any] | None = None, **headers: Any) -> str:
    """A token with a valid signature of this kind of key."""
    algorithm = "ES256" if kind == "JWKS" else kind
    if kind == "JWKS":
        headers = {"kid": "known", **headers}
    key = SECRET if kind == "HS256" else PRIVATE[algorithm]
    return jwt.encode(content or claims(), key, algorithm, headers=headers)


def raw(header: dict[str, Any], content: Any, signature: bytes = b"x" * 32) -> str:
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), json.dumps(content).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def hmac_signed(header: dict[str, Any], secret: bytes) -> str:
    """A token signed with any bytes as the secret, empty ones too."""
    unsigned = raw(header, claims(), b"").rstrip(".")
    tag = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(tag).decode().rstrip('=')}"


def test_a_good_token_is_accepted(kind: str, send: Send) -> None:
    for token in (signed(kind), signed(kind, claims(azp="https://a-1.app.test"))):
        assert send(token).status_code == 202
        assert send(token).status_code == 202  # from the cache


NESTED: Any = {"a": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}

BAD_CLAIMS: list[dict[str, Any]] = [
    {"exp": None}, {"exp": 1}, {"exp": "soon"}, {"exp": True}, {"exp": 1e400}, {"exp": -1},
    {"exp": [2**40]}, {"exp": {}}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": ["alice"]},
    {"sub": {"$ne": ""}}, {"sub": "x" * 256}, {"sub": "a\nb"}, {"sub": "a\0b"}, {"sub": True},
    {"nbf": 2**40}, {"nbf": "now"}, {"iat": 2**40}, {"iat": "now"}, {"iss": None},
    {"iss": "https://other.test"}, {"iss": [ISSUER]}, {"iss": 1}, {"aud": None}, {"aud": "other"},
    {"aud": []}, {"aud": {}}, {"aud": [7]}, {"azp": "https://evil.test"}, {"azp": ""},
    {"azp": "https://a/b.app.test"}, {"azp": "https://.app.test"}, {"azp": 7},
    {"azp": ["https://a.app.test"]}, {"azp": "https://a.app.test.evil.test"},
    {"exp": "9999999999"}, {"exp": float("nan")}, {"exp": 10**19}, {"exp": "1e10"}, {"nbf": "1"},
    {"nbf": True}, {"nbf": [1]}, {"nbf": float("nan")}, {"iat": "1"}, {"iat": True},
    {"iat": float("-inf")}, {"sub": "\ud800"}, {"sub": "a\udfffb"}, {"name": "\ud800"},
    {"\udc00": 1}, {"aud": [AUDIENCE, 7]}, {"aud": AUDIENCE.encode().hex()}, {"n": 2**63},
    {"n": -(2**63) - 1}, {"n": 10**4000}, {"n": float("inf")}, {"deep": NESTED},
    {"azp": "https://a.app.test\n"}, {"azp": "https://evil.test?.app.test"},
    {"azp": "https://evil.test#.app.test"}, {"azp": "https://evil.test:1.app.test"},
    {"azp": "https://evil@x.app.test"}, {"azp": "https://evil.test\\.app.test"},
    {"azp": "https://evil.test%2f.app.test"}, {"azp": "https://é.app.test"},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_CLAIMS, ids=repr)
def test_claims_that_do_not_hold_are_refused(
    kind: str, send: Send, changes: dict[str, Any]
) -> None:
    try:
        token = signed(kind, claims(**changes))
    except (TypeError, ValueError):  # what PyJWT itself refuses to write
        token = _unchecked(kind, claims(**changes))
    for _ in range(3):  # a cached answer is the same
        assert_refused(send(token))


AMBIGUOUS = [
    b'{"sub":"alice","sub":"owner","exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"sub":"alice","exp":1,"exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"sub":"alice","exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s","a":{"b":1,"b":2}}',
    b'{"sub":"alice","exp":1e400,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"sub":"alice","exp":NaN,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"sub":"alice","exp":null,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"sub":null,"exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"sub":"alice","exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s","azp":null}',
    b'{"sub":"\xff","exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'\xef\xbb\xbf{"sub":"alice","exp":9999999999,"iss":"%(iss)s","aud":"%(aud)s"}',
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b"[" * 6000,
    b"[" * 2900 + b"]" * 2900,
    b'{"n":' + b"9" * 5900 + b"}",
    b'{"n":-1e-9999999, "sub":"alice"}',
    b'"text"', b"null", b"7", b"", b"{}", b"[]", b"{} {}",
]  # fmt: skip


@pytest.mark.parametrize("payload", AMBIGUOUS, ids=lambda payload: repr(payload[:60]))
def test_a_payload_that_two_readers_could_read_differently_is_refused(
    kind: str, send: Send, payload: bytes
) -> None:
    content = payload.replace(b"%(iss)s", ISSUER.encode()).replace(b"%(aud)s", AUDIENCE.encode())
    assert_refused(send(_signed_bytes(kind, content)))


def test_a_header_that_names_something_twice_is_refused(send: Send, kind: str) -> None:
    if kind != "HS256":
        return
    body = signed(kind).split(".")[1]
    for header in (
        b'{"alg":"none","alg":"HS256"}',
        b'{"alg":"HS256","typ":"JWT","typ":"JWT"}',
        b'{"alg":"HS256","x":' + b"[" * 3000 + b"]" * 3000 + b"}",
    ):
        unsigned = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{body}"
        tag = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), unsigned.encode(), "sha256"))
        assert_refused(send(f"{unsigned}.{tag.decode().rstrip('=')}"))


def _unchecked(kind: str, content: dict[str, Any]) -> str:
    return _signed_bytes(kind, json.dumps(content).encode())


def _signed_bytes(kind: str, payload: bytes) -> str:
    algorithm = "ES256" if kind == "JWKS" else kind
    key = SECRET if kind == "HS256" else PRIVATE[algorithm]
    headers = {"kid": "known"} if kind == "JWKS" else {}
    return jwt.PyJWS().encode(payload, key, algorithm, headers=headers)


BAD_HEADERS: list[dict[str, Any]] = [
    {"typ": "JWE"}, {"typ": "refresh+jwt"}, {"typ": 7}, {"cty": "JWT"}, {"crit": ["exp"]},
    {"crit": ["b64"], "b64": False}, {"jku": "{issuer}/stolen"}, {"x5u": "{issuer}/stolen"},
    {"jwk": {"kty": "oct", "k": "eA"}}, {"x5c": ["MIIB"]}, {"zip": "DEF"},
]  # fmt: skip


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=repr)
def test_headers_that_bring_their_own_rules_are_refused(
    kind: str, send: Send, issuer: Issuer, issuer_url: str, headers: dict[str, Any]
) -> None:
    there = {
        name: value.replace("{issuer}", issuer_url) if isinstance(value, str) else value
        for name, value in headers.items()
    }
    assert_refused(send(signed(kind, **there)))
    assert "stolen" not in issuer.asked


def test_algorithms_that_do_not_fit_the_key_are_refused(kind: str, send: Send) -> None:
    others = {name: key for name, key in PRIVATE.items() if kind not in (name, "JWKS")}
    for name, key in others.items():
        assert_refused(send(jwt.encode(claims(), key, name, headers={"kid": "known"})))
    for name in ("none", "None", "NONE", "nOnE", "", "HS1", "HS512", "RS512", None, 7, ["HS256"]):
        for signature in (b"", b"x" * 64):
            assert_refused(send(raw({"alg": name, "typ": "JWT"}, claims(), signature)))
    assert_refused(send(raw({"typ": "JWT"}, claims())))


def test_a_public_key_is_no_hmac_secret(kind: str, send: Send) -> None:
    if kind == "HS256":
        return
    pem = public_pem("ES256" if kind == "JWKS" else kind)
    for secret in (pem, pem.strip(), pem.encode() + b"\n"):
        key = secret if isinstance(secret, bytes) else secret.encode()
        assert_refused(send(hmac_signed({"alg": "HS256", "typ": "JWT", "kid": "known"}, key)))


@pytest.mark.parametrize(
    "kid",
    ["../../../../dev/null", "/dev/null", "' OR '1'='1", "known' --", "", "\0", "x" * 2000, 7, None,
     ["known"], {"$ne": ""}, "http://127.0.0.1/key", "file:///etc/passwd"],
    ids=repr,
)  # fmt: skip
def test_a_kid_opens_no_file_and_no_other_key(kind: str, send: Send, kid: Any) -> None:
    header = {"alg": "HS256", "typ": "JWT", "kid": kid}
    for secret in (b"", b"\0", b"key"):
        assert_refused(send(hmac_signed(header, secret)))


def test_a_token_that_is_none_is_refused(kind: str, send: Send) -> None:
    good = signed(kind)
    head, body, tail = good.split(".")
    nested = raw({"alg": "none", "cty": "JWT"}, good)
    tampered = raw({"alg": "HS256"}, claims(sub="owner")).split(".")[1]
    for token in (
        ".", "..", "...", head, f"{head}.{body}", f"{head}.{body}.", f"..{tail}",
        f"{head}.{tampered}.{tail}", f"{good}.x.y", f"{good}=", good[:-4] + "AAAA", nested,
        "é.é.é".encode().decode("latin-1"), "a.b.c", "e30.e30.e30", "x" * 9000,
        signed(kind, claims(padding="x" * 8200)), f"{good} {good}", f"{good},{good}",
        "bnVsbA.bnVsbA.bnVsbA", "W10.W10.W10",
    ):  # fmt: skip
        assert_refused(send(None, [("Authorization", f"Bearer {token}".encode())]))


def test_one_header_in_the_right_scheme_is_wanted(kind: str, send: Send) -> None:
    good = signed(kind)
    for headers in (
        [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")],
        [("Authorization", good)],
        [("Authorization", f"Basic {good}")],
        [("Authorization", f"JWT {good}")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer  {good} x")],
    ):
        assert_refused(send(None, headers))
    assert send(None, [("Cookie", f"token={good}")]).headers["WWW-Authenticate"] == "Bearer"
    assert send(None, [("Authorization", f"bearer {good}")]).status_code == 202


def assert_refused(response: httpx.Response) -> None:
    """401, in the same words whatever was wrong."""
    assert response.status_code == 401, response.text
    assert response.json() == {"success": False, "error": "Unauthorized", "code": "unauthorized"}
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("kind", ["JWKS"], indirect=True)
class TestKeySet:
    def test_it_is_fetched_once_for_many_tokens(
        self, kind: str, send: Send, issuer: Issuer
    ) -> None:
        for number in range(5):
            assert send(signed(kind, claims(sub=f"user{number}"))).status_code == 202
            assert_refused(send(signed(kind, kid=f"unknown-{number}")))
        assert issuer.asked == ["keys"]

    def test_known_keys_are_used_on_while_the_issuer_is_down(
        self, kind: str, send: Send, issuer: Issuer
    ) -> None:
        assert send(signed(kind)).status_code == 202
        issuer.down = True
        assert send(signed(kind, claims(sub="bob"))).status_code == 202

    def test_a_key_for_encryption_or_of_another_type_is_not_used(
        self, kind: str, send: Send, issuer: Issuer
    ) -> None:
        issuer.keys = [
            issuer.key("enc", "ES256", use="enc"),
            issuer.key("rsa", "RS256"),
            {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()},
            {"kid": 7},
        ]
        assert_refused(send(signed(kind, kid="enc")))
        assert_refused(send(signed(kind, kid="rsa")))
        assert_refused(send(jwt.encode(claims(), SECRET, "HS256", headers={"kid": "oct"})))
        rs256 = jwt.encode(claims(), PRIVATE["RS256"], "RS256", headers={"kid": "rsa"})
        assert send(rs256).status_code == 202

    def test_a_set_that_is_away_at_start_is_503_until_it_is_back(
        self, kind: str, send: Send, issuer: Issuer, eventually: Callable[..., None]
    ) -> None:
        issuer.down = True
        begun = time.monotonic()
        refused = send(signed(kind))
        assert time.monotonic() - begun < 6
        assert refused.status_code == 503
        assert "WWW-Authenticate" not in refused.headers
        assert int(refused.headers["Retry-After"]) >= 1
        assert send(None, [("Host", "x")]).status_code == 401  # no token needs no key
        ready = send.ready()  # type: ignore[attr-defined]
        assert ready.status_code == 503
        issuer.down = False
        eventually(lambda: send(signed(kind)).status_code == 202)
        assert "cannot be verified" not in send.ready().text  # type: ignore[attr-defined]
        assert threads.down() == []

    def test_a_key_that_was_withdrawn_is_refused_also_where_its_tokens_were_known(
        self,
        kind: str,
        send: Send,
        issuer: Issuer,
        eventually: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(jwks, "FRESH_SECONDS", 0.05)
        token = signed(kind)
        assert send(token).status_code == 202
        issuer.keys = [issuer.key("other", "ES256")]
        eventually(lambda: send(token).status_code == 401)
        assert send(signed(kind, kid="other")).status_code == 202

    def test_a_new_key_is_taken_at_the_first_token_that_names_it(
        self, kind: str, send: Send, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert send(signed(kind)).status_code == 202
        monkeypatch.setattr(jwks, "PAUSE_SECONDS", 0.0)
        issuer.keys.append(issuer.key("new", "ES256"))
        assert send(signed(kind, kid="new")).status_code == 202
        assert len(issuer.asked) == 2

    def test_while_nobody_can_tell_an_unknown_key_is_503(
        self, kind: str, send: Send, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert send(signed(kind)).status_code == 202
        monkeypatch.setattr(jwks, "PAUSE_SECONDS", 0.0)
        issuer.down = True
        assert send(signed(kind, kid="new")).status_code == 503
        assert send(signed(kind, claims(sub="bob"))).status_code == 202

    def test_an_entry_that_cannot_be_read_costs_that_entry(
        self, kind: str, send: Send, issuer: Issuer
    ) -> None:
        good = issuer.keys
        bad: list[Any] = [
            7, None, [], "x", {}, {"kid": "a"}, {"kid": "a", "kty": ["EC"]},
            {"kid": "a", "kty": "EC", "crv": "P-256"},
            {"kid": "a", "kty": "EC", "crv": {}, "x": 1, "y": []},
            {"kid": "a", "kty": "RSA", "n": "", "e": ""}, {"kid": "a", "kty": "RSA", "n": "AQAB"},
            {"kid": "a", "kty": "RSA", "n": 7, "e": "AQAB"},
            {"kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "é"},
            {"kid": "a", "kty": "OKP", "crv": "X25519", "x": "AA"},
            {**good[0], "kid": "y", "y": "AAAA"}, {**good[0], "kid": "ops", "key_ops": 7},
        ]  # fmt: skip
        issuer.keys = [*bad, *good, *bad]
        assert send(signed(kind)).status_code == 202
        assert_refused(send(signed(kind, kid="a")))

    @pytest.mark.parametrize(
        "fields",
        [{"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": []}, {"alg": "ES384"}, {"alg": "HS256"},
         {"alg": "none"}, {"alg": None}, {"kty": "oct", "k": "AAAA"}],
        ids=repr,
    )  # fmt: skip
    def test_a_key_says_what_it_is_for(
        self, kind: str, send: Send, issuer: Issuer, fields: dict[str, Any]
    ) -> None:
        issuer.keys = [issuer.key("known", "ES256", **fields)]
        assert_refused(send(signed(kind)))

    def test_two_keys_of_one_name_are_told_apart_by_their_algorithm(
        self, kind: str, send: Send, issuer: Issuer
    ) -> None:
        issuer.keys = [issuer.key("known", "RS256"), issuer.key("known", "ES256")]
        assert send(signed(kind)).status_code == 202
        rs256 = jwt.encode(claims(), PRIVATE["RS256"], "RS256", headers={"kid": "known"})
        assert send(rs256).status_code == 202

    def test_a_short_key_is_not_used(self, kind: str, send: Send, issuer: Issuer) -> None:
        short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(short.public_key()))
        issuer.keys = [{**public, "kid": "short"}]
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            token = jwt.encode(claims(), short, "RS256", headers={"kid": "short"})
        assert_refused(send(token))


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


SET = json.dumps({"keys": [Issuer.key("known", "ES256")]}).encode()
HEADER = {"kid": "known", "alg": "ES256"}


@pytest.fixture
def key_source() -> Iterator[Callable[[str], jwks.JwksKeys]]:
    """Keys from a URL: ``key_source(url)``."""
    made: list[jwks.JwksKeys] = []

    def make(url: str) -> jwks.JwksKeys:
        made.append(jwks.JwksKeys(url))
        return made[-1]

    yield make
    for keys in made:
        keys.close()


KeySource = Callable[[str], jwks.JwksKeys]


@pytest.mark.parametrize(
    "reply",
    [
        answer(gzip.compress(SET), "Content-Encoding: gzip"),
        answer(gzip.compress(gzip.compress(b" " * 10**7)), "Content-Encoding: gzip, gzip"),
        answer(SET, "Content-Encoding: br"),
        answer(b'{"keys": [' + b" " * 300_000 + b"]}"),
        answer(b"[" * 200_000),
        answer(b'{"keys": ' + b"[" * 3000 + b"]" * 3000 + b"}"),
        answer(b'{"keys": "known"}'),
        answer(b"[]"),
        answer(b"not JSON"),
        answer(b"\xff\xfe"),
        answer(b"", "Location: http://127.0.0.1:1/keys", status="302 Found"),
        answer(SET, status="203 Non-Authoritative Information"),
        answer(SET, status="500 Internal Server Error"),
        b"nonsense\r\n\r\n",
    ],
    ids=lambda reply: repr(reply[-30:]),
)
def test_an_answer_that_is_no_key_set_replaces_none(
    key_source: KeySource, reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "PAUSE_SECONDS", 0.0)
    replies = [answer(SET)]
    with scripted(lambda connection: connection.sendall(replies[-1])) as url:
        keys = key_source(url)
        assert keys.key(HEADER)
        replies.append(reply)
        with pytest.raises(IssuerUnavailable):
            keys.key({**HEADER, "kid": "new"})
        assert keys.key(HEADER)
        assert keys.version == 1
        assert threads.down() == []


@pytest.mark.parametrize("part", [b"H", answer(SET)[:-1][:30], answer(SET)[:-10]])
def test_nobody_waits_long_for_an_issuer_that_dribbles(
    key_source: KeySource, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(jwks, "EXCHANGE_SECONDS", 4.0)
    slow, ended = threading.Event(), threading.Event()

    def dribble(connection: socket.socket) -> None:
        if not slow.is_set():
            connection.sendall(answer(SET))
            return
        with contextlib.suppress(OSError):
            connection.sendall(part)
            while not ended.wait(0.05):
                connection.sendall(b"x")
        slow.clear()

    try:
        with scripted(dribble) as url:
            keys = key_source(url)
            assert keys.key(HEADER)
            monkeypatch.setattr(jwks, "PATIENCE_SECONDS", 0.2)
            slow.set()
            begun = time.monotonic()
            for _ in range(3):
                with pytest.raises(IssuerUnavailable):
                    keys.key({**HEADER, "kid": "new"})
                assert keys.key(HEADER)
            assert time.monotonic() - begun < 8  # three times the patience, generously
            while slow.is_set():  # until the whole exchange is over, and no longer
                assert time.monotonic() - begun < 60
                assert keys.key(HEADER)
    finally:
        ended.set()
