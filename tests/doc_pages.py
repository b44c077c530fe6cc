"""The pages for users and the Python in them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

__all__ = ["PAGES", "ROOT", "modules", "python_blocks", "write_package"]

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

_BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MODULE = re.compile(r"# actions/(\w+)\.py\n")


def python_blocks(page: Path) -> list[str]:
    """Every block of Python, in order."""
    return _BLOCK.findall(page.read_text())


def modules(page: Path) -> dict[str, str]:
    """The blocks that begin with ``# actions/NAME.py``, by NAME."""
    found: dict[str, str] = {}
    for block in python_blocks(page):
        if named := _MODULE.match(block):
            assert named[1] not in found, f"{page.name} has two modules {named[1]}"
            found[named[1]] = block
    return found


def write_package(page: Path, folder: Path) -> str:
    """Make a package of the page's modules; its name.

    Where the page shows no action, its modules lie on top of the application's own.
    """
    name, shown = f"actions_of_{page.stem.lower()}", modules(page)
    package = folder / name
    package.mkdir()
    (package / "__init__.py").touch()
    if not any("@action" in text for text in shown.values()):
        for module in (ROOT / "actions").glob("*.py"):
            shutil.copy(module, package)
    for module, text in shown.items():
        (package / f"{module}.py").write_text(text)
    return name
