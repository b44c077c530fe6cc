"""The import rule: who may know whom. And the public names, which other people's code uses."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import callboard

ROOT = Path(__file__).parents[2]
# by package; `api` and `worker` import themselves relatively: the wheel has them in `callboard`
FORBIDDEN = {
    "actions": {"api", "worker", "flask", "celery"},
    "api": {"actions", "api", "worker", "celery", "kombu", "pymongo"},
    "callboard": {"actions", "api", "worker", "flask", "celery", "kombu"},
    "worker": {"actions", "api", "worker", "flask"},
}
# rooms and modules of `callboard`; none imports one of a later line
LAYERS = (
    ("codes", "errors", "types", "strict_json", "cursor", "times", "numbers", "subject", "layout"),
    ("json_object", "log", "processes", "sans_io", "tracing"),
    ("settings", "connections"),
    ("clock", "sdk"),
    ("runs",),
    ("registry", "schedules"),
    ("applications", "preflight", "producer", "programs"),
    ("client", "__init__"),
    ("stack",),
    ("cli", "testing"),
)
NAMED = re.compile(r"(api|worker)([./:]\w[\w./:()]*)")  # a module, a file or `module:object`
BY_NAME = {"__import__", "find_spec", "import_module"}  # functions that take a module's name
LAYOUT = "callboard.layout"  # the one module of `callboard` that knows the names of the others
USERS_OF_LAYOUT = {"callboard.cli.doctor", "callboard.programs", "callboard.testing.inline"}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


FILES = {
    name_of(file): ast.parse(file.read_text(encoding="utf-8"))
    for package in FORBIDDEN
    for file in sorted((ROOT / package).rglob("*.py"))
}


def imported(file: str) -> Iterator[str]:
    """What a file imports, wherever in it, as absolute names; a relative import is made one."""
    for node in ast.walk(FILES[file]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(file.split(".")[: -node.level]) if node.level else ""
            whole = ".".join(filter(None, (base, node.module)))
            yield from (f"{whole}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in BY_NAME and node.args:
            yield from texts(node.args[0])


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def file_of(name: str) -> str | None:
    """The file that an imported name is in, or is."""
    for found in (
        name,
        f"{name}.__init__",
        parent := name.rpartition(".")[0],
        f"{parent}.__init__",
    ):
        if found in FILES:
            return found
    return None


GRAPH = {
    file: {found for name in imported(file) if (found := file_of(name)) and found != file}
    for file in FILES
}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_it_may_not_know(package: str) -> None:
    files = [file for file in FILES if file.startswith(f"{package}.")]
    assert files
    for file in files:
        for node in ast.walk(FILES[file]):
            if isinstance(node, ast.ImportFrom) and node.level:
                continue
            names = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            elif isinstance(node, ast.Call) and called(node) in BY_NAME and node.args:
                names = set(texts(node.args[0]))
            for name in names:
                assert name.partition(".")[0] not in FORBIDDEN[package], f"{file}: imports {name}"


def test_no_relative_import_leaves_its_package() -> None:
    for file, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level < len(file.split(".")), f"{file}:{node.lineno}"


def test_no_circle_of_files() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_no_room_of_callboard_imports_upwards() -> None:
    floors = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}
    for file, others in GRAPH.items():
        if not file.startswith("callboard.") or file.startswith("callboard.cli.project."):
            continue
        for other in others:
            assert floors[other.split(".")[1]] <= floors[file.split(".")[1]], f"{file}: {other}"


def test_nobody_names_the_packages_of_others_in_strings() -> None:
    """In the wheel they have others: `callboard.layout` knows them, ``__package__`` one's own."""
    for file, tree in FILES.items():
        if file != LAYOUT:
            for text in texts(tree):
                assert not NAMED.fullmatch(text), f"{file}: {text!r}"


def test_few_ask_for_those_names() -> None:
    asking = {file for file in FILES if {f"{LAYOUT}.API", f"{LAYOUT}.WORKER"} & set(imported(file))}
    assert asking == USERS_OF_LAYOUT


@pytest.mark.parametrize(
    "text", ["worker.x:Y", "api:create_app()", "worker.runs.inline", "api/gunicorn_conf.py"]
)
def test_what_counts_as_a_name(text: str) -> None:
    assert NAMED.fullmatch(text)


def test_the_public_names_are_those_of_the_contract() -> None:
    assert set(callboard.__all__) == {
        "ActionContext", "ActionResult", "ActionTools", "AsyncActionContext", "AsyncActionTools",
        "Client", "Collection", "Fails", "Limit", "Retry", "Schedule", "action", "all_of",
        "enqueue", "exists", "fail", "gt", "gte", "hooks", "lt", "lte", "ne", "ok", "one_of",
    }  # fmt: skip
    for name in callboard.__all__:
        assert getattr(callboard, name) is not None


@pytest.mark.parametrize("path", ["gunicorn.conf.py", "flowerconfig.py"])
def test_what_programs_read_as_their_settings_finds_what_it_imports(path: str) -> None:
    """No type checker looks at these."""
    tree = ast.parse((ROOT / path).read_text())
    imported = [
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("callboard")
        for name in node.names
    ]
    assert imported
    for module, name in imported:
        if not hasattr(importlib.import_module(str(module)), name):
            importlib.import_module(f"{module}.{name}")
