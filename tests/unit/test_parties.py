"""Patterns of authorized parties (JWT_AUTHORIZED_PARTIES)."""

from __future__ import annotations

import time

import pytest

from api.identity.tokens import party_pattern


@pytest.mark.parametrize(
    ("pattern", "party", "fits"),
    [
        ("https://app.test", "https://app.test", True),
        ("https://*.app.test", "https://a.app.test", True),
        ("https://*.app.test", "https://a.b-1.app.test", True),
        ("https://*.app.test", "https://.app.test", False),
        ("http://localhost:*", "http://localhost:3000", True),
        ("https://*-*.app.test", "https://pr-7-x.app.test", True),
        ("https://*-*.app.test", "https://pr7.app.test", False),
        ("https://*-*.app.test", "https://-7.app.test", False),
        ("**", "a", False),
        ("**", "ab", True),
        ("*", "https://a.test", False),
        ("(a|b)*", "ax", False),
        ("https://*:*", "https://a.test:443", True),
        ("https://*:*", "https://a.test:443:1", False),
    ],
)
def test_a_star_is_part_of_a_host_name(pattern: str, party: str, fits: bool) -> None:
    assert bool(party_pattern(pattern).fullmatch(party)) is fits


def test_many_stars_match_in_linear_time() -> None:
    many = party_pattern("*a" * 20 + "*b")
    begun = time.thread_time()
    assert not many.fullmatch("a" * 6000)
    assert time.thread_time() - begun < 1  # takes years where each star is tried at each length
