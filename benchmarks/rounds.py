"""Rounds: each stack has its turn in each, and another one begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.stacks import Stack

__all__ = ["in_turn"]


def in_turn(stacks: Sequence[Stack], rounds: int) -> Iterator[tuple[int, Stack]]:
    """The round, counted from 0, and the stack; each turn is a line, where its figures follow."""
    for number in range(rounds):
        first = number % len(stacks)
        for stack in [*stacks[first:], *stacks[:first]]:
            print(f"round {number + 1} of {rounds}: {stack.name}", end="", flush=True)
            yield number, stack
            print()
