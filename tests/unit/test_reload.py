"""What counts as a change of the actions package, however it came about."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from callboard.stack.reload import LOOK_SECONDS, Changes


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "actions"
    (folder / "billing").mkdir(parents=True)
    for name in ("__init__.py", "case.py", "billing/m.py"):
        (folder / name).write_text("VALUE = 1\n")
    return folder


class Watch:
    """`Changes` whose clock the test moves."""

    def __init__(self, folder: Path) -> None:
        self._now = 0.0
        self.changes = Changes(str(folder), lambda: self._now)

    def __call__(self) -> list[bool]:
        """What the next looks say."""
        told = []
        for _ in range(4):
            self._now += LOOK_SECONDS
            told.append(self.changes.take())
        return told


@pytest.fixture
def looks(package: Path) -> Watch:
    return Watch(package)


NONE = [False] * 4
ONE = [False, True, False, False]  # the first look cannot know that it was all


def _rename(package: Path) -> None:
    (package / ".case.swp").write_text("VALUE = 2\n")
    (package / ".case.swp").rename(package / "case.py")


def _move_in(package: Path) -> None:
    shutil.copytree(package / "billing", package.parent / "outside")
    (package.parent / "outside").rename(package / "moved")


def _swap_link(package: Path) -> None:
    other = package.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "m.py").write_text("VALUE = 3\n")
    (package / "linked").symlink_to(other)


def _file_to_folder(package: Path) -> None:
    (package / "case.py").unlink()
    (package / "case").mkdir()
    (package / "case" / "__init__.py").write_text("VALUE = 4\n")


def _replace_all(package: Path) -> None:
    package.rename(package.parent / "old")
    shutil.copytree(package.parent / "old", package)


def _same_size_and_time(package: Path) -> None:
    before = (package / "case.py").stat()
    (package / "new").write_text("VALUE = 9\n")
    os.utime(package / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (package / "new").rename(package / "case.py")


@pytest.mark.parametrize(
    "change",
    [
        lambda package: (package / "case.py").write_text("VALUE = 22\n"),
        lambda package: (package / "case.py").unlink(),
        lambda package: (package / "new.py").touch(),
        lambda package: (package / "case.py").write_bytes(b"\xff\xfe"),
        lambda package: shutil.rmtree(package / "billing"),
        lambda package: (package / "billing").rename(package.parent / "gone"),
        lambda package: (package / "dangling.py").symlink_to("nowhere"),
        shutil.rmtree,
        _rename,
        _move_in,
        _swap_link,
        _file_to_folder,
        _replace_all,
        _same_size_and_time,
    ],
)
def test_a_change_is_seen_once(package, looks, change):
    assert looks() == NONE
    change(package)
    assert looks() == ONE
    assert looks() == NONE


def test_what_is_no_code_is_no_change(package, looks):
    (package / "notes.txt").touch()
    (package / ".case.py.swp").touch()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "case.py").touch()
    (package / "empty").mkdir()
    assert looks() == NONE


def test_a_link_back_is_followed_once(package, looks):
    (package / "billing" / "back").symlink_to(package)
    (package / "billing" / "itself").symlink_to(package / "billing")
    assert looks() == NONE
    (package / "case.py").write_text("VALUE = 5\n")
    assert looks() == ONE


def test_a_plain_module_is_watched(tmp_path):
    module = tmp_path / "actions.py"
    module.write_text("VALUE = 1\n")
    looks = Watch(module)
    module.write_text("VALUE = 22\n")
    assert looks.changes.pending
    assert looks() == ONE
    assert not looks.changes.pending


def test_what_was_forgotten_is_a_change_again(package, looks):
    looks.changes.forget()
    assert True in looks()
    assert looks() == NONE


def test_files_that_are_still_being_written_are_waited_for(package):
    now = 0.0
    changes = Changes(str(package), lambda: now)
    for size in range(1, 6):
        (package / "case.py").write_text("#" * size)
        now += LOOK_SECONDS
        assert not changes.take()
    now += LOOK_SECONDS
    assert changes.take()


def test_a_module_that_the_actions_import_is_looked_at_too(package):
    now = 0.0
    shared, later = package.parent / "shared.py", package.parent / "later.py"
    for module in (shared, later):
        module.write_text("VALUE = 1\n")
    changes = Changes(str(package), lambda: now, [str(shared)])

    def changed() -> bool:
        nonlocal now
        seen = False
        for _ in range(4):
            now += LOOK_SECONDS
            seen |= changes.take()
        return seen

    shared.write_text("VALUE = 22\n")
    assert changed()
    later.write_text("VALUE = 22\n")
    assert not changed()
    changes.follow([str(shared), str(later)])
    assert not changed()
    later.write_text("VALUE = 333\n")
    assert changed()
    later.unlink()
    assert changed()
