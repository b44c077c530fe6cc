"""The check before a start, whatever the actions' modules do while they are imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard.errors import ConfigurationError
from callboard.preflight import Declared, preflight

ONE = "from callboard import action, ok\n\n\n@action\ndef greet(ctx):\n    return ok()\n"


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Declared]:
    """Check a package of one module: ``check("import this")``."""

    def run(text: str, **options: Callable[[], str | None]) -> Declared:
        (tmp_path / "checked_actions.py").write_text(text)
        given = {
            "CALLBOARD_ACTIONS": "checked_actions",
            "PYTHONPATH": str(tmp_path),
            "PATH": os.environ["PATH"],
            "REDIS_URL": "redis://127.0.0.1",
            "MONGODB_URI": "mongodb://127.0.0.1/app",
            "SECRET_KEY": "k" * 40,
            "JWT_SECRET": "j" * 40,
            "CALLBOARD_CONSOLE": "true",
        }
        return preflight(given, **options)

    return run


def test_it_says_what_is_declared(check, tmp_path):
    declared = check(ONE)
    assert [action.name for action in declared.actions] == ["greet"]
    assert declared.folder == str(tmp_path / "checked_actions.py")
    assert declared.pages == ("console",)


@pytest.mark.parametrize(
    "more",
    [
        "import sys; print('printed', end=''); sys.stdout.buffer.write(b'\\xff')",
        "import atexit; atexit.register(print, 'at the end')",
        "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()",
        "try: input()\nexcept EOFError: pass",
    ],
)
def test_what_a_module_does_besides_is_not_in_the_way(check, more):
    assert check(f"{ONE}\n{more}\n").actions


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys; sys.exit(3)", "SystemExit"),
        ("import os; os._exit(0)", "ended with 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with -9"),
        ("def broken(:", r"checked_actions\.py:1: cannot import"),
        ("print('declared: {}')", "holds no action"),
    ],
)
def test_what_does_not_import_is_told(check, text, told):
    with pytest.raises(ConfigurationError, match=told):
        check(text)


def test_an_import_that_nobody_waits_for_any_more_is_ended(check):
    with pytest.raises(ConfigurationError, match="changed again"):
        check("import time; time.sleep(600)", give_up=lambda: "changed again")


def test_it_names_the_modules_of_the_project_that_the_actions_import(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("prices.py", "not_imported.py"):
        (tmp_path / name).write_text("VALUE = 1\n")
    declared = check(f"import json, prices\n{ONE}")
    assert set(declared.imported) == {
        str(tmp_path / "prices.py"),
        str(tmp_path / "checked_actions.py"),
    }
