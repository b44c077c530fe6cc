"""Cursors: what goes in comes out, and what is none is told."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from callboard import cursor

VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()


@given(st.lists(VALUES))
def test_a_position_comes_back(position: list[object]) -> None:
    text = cursor.encode(position)
    assert text.isascii()
    assert "=" not in text
    assert cursor.decode(text) == position


@pytest.mark.parametrize("text", ["", "?", "W10==", "bm90IGpzb24", "a", "\u20ac", "TmFO"])
def test_what_is_no_cursor_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        cursor.decode(text)
