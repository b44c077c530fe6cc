"""The seal: what it hides, and that nothing sealed can be altered, moved or aged unseen."""

import time

import pytest
from hypothesis import given, settings, strategies as st

from callboard.errors import SealError
from callboard.runs.seal import CALL_LIFETIME, Call, Sealer
from callboard.sdk.request import ActionRequest

KEY, NEXT_KEY = "k" * 40, "n" * 40
RUN, OTHER_RUN = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
sealer = Sealer((KEY,))


@given(st.binary(max_size=2000))
def test_what_is_sealed_opens_again(content: bytes) -> None:
    assert sealer.open("call", RUN, "a", sealer.seal("call", RUN, "a", content)) == content


def test_nothing_of_the_content_shows() -> None:
    content = b"canary-1234567890"
    assert b"canary" not in sealer.seal("call", RUN, "a", content)
    assert sealer.seal("call", RUN, "a", content) != sealer.seal("call", RUN, "a", content)


@pytest.mark.parametrize(
    ("kind", "run_id", "action"),
    [("result", RUN, "a"), ("call", OTHER_RUN, "a"), ("call", RUN, "b")],
)
def test_a_seal_opens_only_where_it_belongs(kind: str, run_id: str, action: str) -> None:
    sealed = sealer.seal("call", RUN, "a", b"x")
    with pytest.raises(SealError):
        sealer.open(kind, run_id, action, sealed)  # type: ignore[arg-type]


def test_no_single_bit_can_be_altered() -> None:
    sealed = sealer.seal("call", RUN, "a", b"content")
    for position in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises(SealError):
            sealer.open("call", RUN, "a", bytes(altered))


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02" + bytes(60), b"{}", bytes(12)])
def test_what_is_no_seal_is_refused(sealed: bytes) -> None:
    with pytest.raises(SealError):
        sealer.open("call", RUN, "a", sealed)


def test_keys_rotate_without_losing_what_is_under_way() -> None:
    before = sealer.seal("call", RUN, "a", b"old")
    rotated = Sealer((NEXT_KEY, KEY))
    assert rotated.open("call", RUN, "a", before) == b"old"
    with pytest.raises(SealError):
        sealer.open("call", RUN, "a", rotated.seal("call", RUN, "a", b"new"))
    assert rotated.is_signed(sealer.sign("task", RUN), "task", RUN)
    assert rotated.signs("task", RUN) == [rotated.sign("task", RUN), sealer.sign("task", RUN)]


def test_a_signature_covers_each_part_and_their_borders() -> None:
    tag = sealer.sign("ab", "c")
    assert sealer.is_signed(tag, "ab", "c")
    for parts in (("a", "bc"), ("ab", "d"), ("ab", "c", ""), ("abc",)):
        assert not sealer.is_signed(tag, *parts)
    for forged in (None, 7, "", tag[:-1], tag.upper() + "é", Sealer((NEXT_KEY,)).sign("ab", "c")):
        assert not sealer.is_signed(forged, "ab", "c")


def test_a_call_survives_its_json_and_shows_no_credential() -> None:
    call = Call(caller="alice", claims={"x": 1}, jwt="secret-jwt", params={"p": "secret-param"})
    assert Call.from_json(call.to_json()) == call
    assert "secret" not in repr(call)
    assert abs(call.expires - time.time() - CALL_LIFETIME) < 5


@settings(deadline=None)
@given(
    st.binary(max_size=2000),
    st.dictionaries(
        st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255))
    ),
)
def test_so_does_the_request_of_one(body: bytes, headers: dict[str, str]) -> None:
    given_headers = {name: value for name, value in headers.items() if name.isascii()}
    request = ActionRequest.of(given_headers.items(), body)
    call = Call(caller=None, request=request)
    assert Call.from_json(call.to_json()) == call
    assert request.body == body
    assert Call(caller=None).to_json().find(b"request") == -1
    assert "ActionRequest(received_at=" in repr(call)  # and no more of it
