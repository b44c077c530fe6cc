"""The import rule: who may know whom. And the public names, which other people's code uses."""

import ast
from pathlib import Path

import pytest

import callboard

ROOT = Path(__file__).parents[2]
LOCAL = {"actions", "api", "callboard", "worker"}
FORBIDDEN = {
    "actions": {"api", "worker", "flask", "celery"},
    "api": {"actions", "worker", "celery", "kombu", "pymongo"},
    "callboard": {"actions", "api", "worker", "flask", "celery", "kombu"},
    "worker": {"actions", "api", "flask"},
}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_it_may_not_know(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in _imports(file):
            assert name.partition(".")[0] not in FORBIDDEN[package], f"{file}: imports {name}"


def _imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
    return names


def test_the_public_names_are_those_of_the_contract() -> None:
    assert set(callboard.__all__) == {
        "ActionContext", "ActionResult", "ActionTools", "Client", "Collection", "Retry",
        "Schedule", "action", "all_of", "enqueue", "exists", "fail", "gt", "gte", "lt", "lte", "ne",
        "ok", "one_of",
    }  # fmt: skip
    for name in callboard.__all__:
        assert getattr(callboard, name) is not None
