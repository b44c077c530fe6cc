"""The pages for users: their samples are code that works, and the table of settings is current."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, modules, python_blocks, write_package

from callboard.registry import discover


@pytest.mark.parametrize(
    "page", [page for page in PAGES if modules(page)], ids=lambda page: page.name
)
def test_the_modules_of_a_page_are_an_actions_package_that_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert discover(write_package(page, tmp_path)).actions


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_is_python(page: Path) -> None:
    for number, block in enumerate(python_blocks(page), start=1):
        compile(block, f"{page.name}, block {number}", "exec")


def test_the_table_of_settings_is_what_the_settings_object_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    generator = importlib.import_module("generate_settings")
    page = generator.PAGE.read_text()
    assert generator.with_table(page) == page, "run `python docs/generate_settings.py`"
