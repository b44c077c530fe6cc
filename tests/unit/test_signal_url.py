"""Signal URLs: what they are good for, and what for not."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, strategies as st

from callboard.errors import ConfigurationError, InvalidData
from callboard.runs.seal import Sealer
from callboard.runs.signal_url import SignalUrls

KEY, NEXT_KEY = "k" * 40, "n" * 40
RUN, OTHER_RUN = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
urls = SignalUrls((KEY,), "https://app.example/board")


def signature(of: SignalUrls = urls, run_id: str = RUN, name: str = "approve") -> str:
    [text] = parse_qs(urlsplit(of.url(run_id, name)).query)["signature"]
    return text


def test_it_says_which_signal_of_which_run() -> None:
    parts = urlsplit(urls.url(RUN, "approve"))
    assert (parts.scheme, parts.netloc) == ("https", "app.example")
    assert parts.path == f"/board/api/runs/{RUN}/signals/approve"
    assert urls.url(RUN, "approve") == urls.url(RUN, "approve")  # at every attempt


def test_it_is_good_for_one_signal_of_one_run() -> None:
    assert urls.is_signed(signature(), RUN, "approve")
    assert not urls.is_signed(signature(), RUN, "refuse")
    assert not urls.is_signed(signature(), OTHER_RUN, "approve")
    assert not SignalUrls((NEXT_KEY,), None).is_signed(signature(), RUN, "approve")


def test_no_other_derivation_makes_one() -> None:
    assert Sealer((KEY,)).sign(RUN, "approve") != signature()


@given(st.text())
def test_nothing_else_is_a_signature(text: str) -> None:
    assert not urls.is_signed(text, RUN, "approve")


@pytest.mark.parametrize("position", range(64))
def test_every_digit_of_it_counts(position: int) -> None:
    good = signature()
    altered = "0" if good[position] != "0" else "1"
    assert not urls.is_signed(good[:position] + altered + good[position + 1 :], RUN, "approve")
    assert not urls.is_signed(good[: position + 1][:-1], RUN, "approve")


def test_a_url_lives_as_long_as_its_key_is_in_the_list() -> None:
    rotated = SignalUrls((NEXT_KEY, KEY), "https://app.example")
    assert rotated.is_signed(signature(), RUN, "approve")
    assert rotated.is_signed(signature(rotated), RUN, "approve")
    assert not urls.is_signed(signature(rotated), RUN, "approve")


def test_it_needs_to_know_where_others_reach_the_api() -> None:
    with pytest.raises(ConfigurationError, match="CALLBOARD_PUBLIC_URL"):
        SignalUrls((KEY,), None).url(RUN, "approve")


def test_it_needs_the_name_of_a_signal() -> None:
    with pytest.raises(InvalidData, match="a b"):
        urls.url(RUN, "a b")
