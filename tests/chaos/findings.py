"""Findings: what must not be."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding", "doubled", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that must not be. ``kind``: lost, or doubled."""

    kind: str
    text: str


def lost(text: str) -> Finding:
    """Something is not there that must be."""
    return Finding(kind="lost", text=text)


def doubled(text: str) -> Finding:
    """Something is there twice, or was not asked for."""
    return Finding(kind="doubled", text=text)
