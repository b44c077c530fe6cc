"""Discovery: every module of the actions package, and each mistake with file and line."""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from callboard import action, ok
from callboard.errors import ConfigurationError, UnknownAction
from callboard.registry import Registry, discover

ACTION = "from callboard import action, ok\n\n@action\ndef {name}(ctx):\n    return ok()\n"
Package = Callable[[dict[str, str]], str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Writes a package of these modules and answers its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(modules: dict[str, str]) -> str:
        name = f"acts_{tmp_path.name.replace('-', '_')}"
        for path, text in {"__init__.py": "", **modules}.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return name

    return write


def test_every_module_is_found(package: Package) -> None:
    name = package(
        {
            "one.py": ACTION.format(name="first_one"),
            "sub/__init__.py": "",
            "sub/two.py": ACTION.format(name="second"),
            "schedules.py": "from callboard import Schedule\n"
            "SCHEDULES = [Schedule('s', 'second', every_minutes=5)]\n",
            "integrations.py": "INTEGRATIONS = {'google': 'user'}\n",
        }
    )
    registry = discover(name)
    assert sorted(registry.actions) == ["firstOne", "second"]
    assert registry.schedules[0].name == "s"
    assert registry.integrations == {"google": "user"}
    assert registry.queues == ("callboard",)


def test_async_actions_have_lists_of_their_own(package: Package) -> None:
    name = package(
        {
            "one.py": ACTION.format(name="plain"),
            "two.py": "from callboard import action, ok\n\n\n@action(queue='slow')\n"
            "async def wait(ctx):\n    return ok()\n",
        }
    )
    registry = discover(name)
    assert registry.queues == ("callboard", "slow")
    assert registry.message_queues == ("callboard", "slow.async")


def test_modules_in_folders_without_init_are_found(package: Package) -> None:
    name = package(
        {
            "top.py": ACTION.format(name="top"),
            "billing/invoices.py": ACTION.format(name="make_invoice"),
            "mail/__init__.py": "",
            "mail/send.py": ACTION.format(name="send_mail"),
            "mail/deep/inner.py": ACTION.format(name="deep_one"),
            "one/two/three.py": ACTION.format(name="three"),
            "not-a-name/odd.py": "raise SystemExit\n",
            "templates/mail.txt": "",
        }
    )
    assert sorted(discover(name).actions) == ["deepOne", "makeInvoice", "sendMail", "three", "top"]


def test_a_package_that_links_to_itself_ends(package: Package, tmp_path: Path) -> None:
    name = package({"one.py": ACTION.format(name="one")})
    (tmp_path / name / "again").symlink_to(tmp_path / name, target_is_directory=True)
    assert list(discover(name).actions) == ["one"]


def test_an_action_imported_elsewhere_is_still_one(package: Package) -> None:
    name = package({"a.py": ACTION.format(name="one"), "b.py": "from .a import one\n"})
    assert list(discover(name).actions) == ["one"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nothing_of_this_name\n", r"bad\.py:1: .*nothing_of_this_name"),
        ("x = 1\n\ny = x.z\n", r"bad\.py:3: .*AttributeError"),
        ("x = (\n", r"bad\.py:1: .*SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"bad\.py:2: .*SystemExit"),
        ("from callboard import Retry\n\nRetry(max_attempts=0)\n", r"bad\.py:3: .*max_attempts"),
    ],
)
def test_a_module_that_does_not_import_is_told_with_its_line(
    package: Package, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        discover(package({"bad.py": text}))


def test_two_actions_of_one_name_are_told_with_both_places(package: Package) -> None:
    name = package({"a.py": ACTION.format(name="twice"), "b.py": ACTION.format(name="twice")})
    with pytest.raises(ConfigurationError, match=r"b\.py:\d+: action 'twice'.*a\.py:\d+"):
        discover(name)


def test_a_function_that_replaces_an_action_is_told_with_both_places(package: Package) -> None:
    text = ACTION.format(name="once") + ACTION.format(name="once")
    with pytest.raises(ConfigurationError, match=r"a\.py:\d+: once is already .*a\.py:\d+, as"):
        discover(package({"a.py": text}))


def test_a_module_may_be_executed_once_more(package: Package) -> None:
    name = package({"a.py": ACTION.format(name="once")})
    discover(name)
    importlib.reload(sys.modules[f"{name}.a"])


def test_a_package_without_actions_is_told(package: Package) -> None:
    with pytest.raises(ConfigurationError, match="holds no action"):
        discover(package({}))


def test_a_declaration_of_the_wrong_type_is_told(package: Package) -> None:
    name = package({"a.py": ACTION.format(name="one"), "schedules.py": "SCHEDULES = {}\n"})
    with pytest.raises(ConfigurationError, match=r"schedules\.py: SCHEDULES must be a list"):
        discover(name)


def test_an_unknown_action_names_the_nearest(package: Package) -> None:
    registry = discover(package({"a.py": ACTION.format(name="invite_attendee")}))
    with pytest.raises(UnknownAction, match=r"'inviteAtendee'\. Did you mean 'inviteAttendee'\?"):
        registry.get("inviteAtendee")


def test_a_folder_without_init_wins_over_an_installed_package_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, installed = tmp_path / "own", tmp_path / "installed"
    for folder, greeting in ((own, "mine"), (installed, "theirs")):
        (folder / "shadowed").mkdir(parents=True)
        (folder / "shadowed" / "greetings.py").write_text(
            f"from callboard import action, ok\n\n@action\ndef {greeting}(ctx):\n    return ok()\n"
        )
    (installed / "shadowed" / "__init__.py").touch()
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(own)
    assert set(discover("shadowed").actions) == {"mine"}


@pytest.mark.parametrize("asked", ["ba" * 32, "a" * 64, "x" * 4000, ""])
def test_the_search_for_near_names_is_bounded(asked: str) -> None:
    names = {f"{text}{n}" for text in ("ba" * 30, "a" * 50) for n in range(500)}
    registry = Registry(actions=dict.fromkeys(names, action("one")(lambda ctx: ok())))
    started = time.process_time()
    for _ in range(10):
        with pytest.raises(UnknownAction):
            registry.get(asked)
    assert time.process_time() - started < 0.5  # 0.05 s each; without a bound it is 0.2 s
