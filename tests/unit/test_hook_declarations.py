"""Hooks as an application declares them: what is found, and each mistake with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard.errors import ConfigurationError
from callboard.registry import discover
from callboard.sdk.hooks import Hooks

ACTION = "from callboard import action, ok\n\n@action\ndef greet(ctx):\n    return ok()\n"
HEAD = "from callboard import hooks\n\n"
Find = Callable[..., Hooks]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """The hooks of an application with this ``hooks.py``."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"hooked_{tmp_path.name.replace('-', '_')}"

    def found(text: str, **modules: str) -> Hooks:
        package.mkdir()
        for name, content in {"__init__": "", "one": ACTION, "hooks": text, **modules}.items():
            (package / f"{name}.py").write_text(content)
        return discover(package.name).hooks

    return found


def test_each_kind_is_found_in_the_order_of_definition(find: Find) -> None:
    hooks = find(
        HEAD + "@hooks.around\ndef first(ctx, call_next): ...\n"
        "@hooks.around\nasync def second(ctx, call_next): ...\n"
        "@hooks.on_error\ndef told(ctx, error): ...\n"
        "@hooks.on_end\ndef ended(ctx, result): ...\n"
        "@hooks.process\ndef clients(): yield 1\n"
        "@hooks.process\nasync def async_clients(): yield 2\n"
        "again = first\n"
    )
    assert [(hook.name, hook.is_async) for hook in hooks.around] == [
        ("first", False), ("second", True),
    ]  # fmt: skip
    assert [hook.name for hook in (*hooks.on_error, *hooks.on_end)] == ["told", "ended"]
    for is_async, name in ((False, "clients"), (True, "async_clients")):
        hook = hooks.process_of(is_async)
        assert hook is not None
        assert hook.name == name


def test_one_process_hook_is_for_handlers_of_both_kinds(find: Find) -> None:
    hooks = find(HEAD + "@hooks.process\nasync def clients(): yield 1\n")
    assert hooks.process_of(False) is hooks.process_of(True) is hooks.process[0]


def test_a_hook_may_come_from_elsewhere_by_its_name(find: Find) -> None:
    text = HEAD + "@hooks.on_end\ndef ended(ctx, result): ...\n"
    assert len(find("from .shared import ended\n", shared=text).on_end) == 1


def test_without_the_module_there_are_none(find: Find) -> None:
    assert find("") == Hooks()
    assert not Hooks().listen


WRONG = {
    "parameters": ("@hooks.around\ndef f(ctx): ...\n", r":3: f must take \(ctx, call_next\)"),
    "a keyword": ("@hooks.on_end\ndef f(ctx, *, result): ...\n", r"must take \(ctx, result\)"),
    "of a process": ("@hooks.process\ndef f(ctx): yield\n", r":3: f must take \(\) as @hooks.pro"),
    "no generator": ("@hooks.process\ndef f(): ...\n", r":3: @hooks.process takes a generator"),
    "a generator": ("@hooks.around\ndef f(ctx, call_next): yield\n", r":3: f has a `yield`"),
    "no function": ("hooks.on_error(3)\n", r"hooks.py:3: @hooks.on_error takes a function, not 3"),
    "wrapped": (
        "import contextlib\n@hooks.process\n@contextlib.contextmanager\ndef f(): yield\n",
        r"hooks.py:4: @hooks.process takes a generator",
    ),
    "one function twice": (
        "@hooks.around\ndef f(ctx, call_next): ...\n"
        "@hooks.on_end\ndef f(ctx, result): ...\n",
        r":5: f is already defined at .*hooks.py:3, as @hooks.around",
    ),
    "two of a kind": (
        "@hooks.process\ndef f(): yield\n@hooks.process\ndef g(): yield\n",
        r":5: g is the second plain @hooks.process after .*hooks.py:3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_ends_the_start(find: Find, wrong: str) -> None:
    text, message = WRONG[wrong]
    with pytest.raises(ConfigurationError, match=message):
        find(HEAD + text)


def test_a_hook_that_nobody_would_call_is_refused(find: Find) -> None:
    stray = ACTION + HEAD + "@hooks.on_end\ndef ended(ctx, result): ...\n"
    with pytest.raises(ConfigurationError, match=re.escape("one.py:8: @hooks.on_end 'ended'")):
        find("", one=stray)
