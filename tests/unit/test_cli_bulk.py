"""`callboard runs cancel | retry | replay`: one run, or all that the options find."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from callboard import cli
from callboard.cli.bulk import bulk_options, bulk_request, print_done


def order(*arguments: str) -> Any:
    """The body that these arguments make, or what the command says of them."""
    made: list[Any] = []

    @click.command()
    @click.argument("run_id", required=False)
    @bulk_options
    def command(run_id: str | None, **chosen: Any) -> None:
        made.append(bulk_request("cancel", run_id, chosen))

    told = CliRunner().invoke(command, arguments)
    return made[0] if made else told.output


def test_the_options_are_the_filter() -> None:
    assert order("--action", "a", "--status", "failed", "--caller", "c", "--limit", "5") == {
        "do": "cancel",
        "filter": {"action": "a", "status": "failed", "caller": "c"},
        "dryRun": False,
        "limit": 5,
    }
    assert order("--action", "a", "--dry-run")["dryRun"] is True


def test_an_id_is_one_run() -> None:
    assert order("4711") is None


@pytest.mark.parametrize(
    "arguments", [(), ("--dry-run",), ("--limit", "5"), ("4711", "--action", "a")]
)
def test_neither_or_both_is_refused(arguments: tuple[str, ...]) -> None:
    assert "Give either the ID of a run, or which runs" in order(*arguments)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", timedelta(seconds=90)), ("2h", timedelta(hours=2)), ("7d", timedelta(days=7))],
)
def test_a_time_may_be_so_long_ago(text: str, ago: timedelta) -> None:
    since = datetime.fromisoformat(order("--since", text)["filter"]["since"])
    assert abs(datetime.now(UTC) - ago - since) < timedelta(minutes=5)


def test_a_time_may_be_a_moment() -> None:
    told = order("--until", "2026-01-31T09:00:00+01:00")
    assert told["filter"] == {"until": "2026-01-31T08:00:00.000Z"}


@pytest.mark.parametrize("text", ["2", "h", "2w", "2026-01-31", "2026-01-31T08:00:00", "-2h"])
def test_what_is_no_time_is_named(text: str) -> None:
    assert text in order("--since", text)


@pytest.mark.parametrize(("do", "advice"), [("retry", "run it again"), ("replay", "--until")])
def test_what_to_do_about_those_left_out(
    do: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_done({"do": do, "dryRun": False}, {"matched": 3, "done": 3, "complete": False})
    shown = capsys.readouterr().out
    assert advice in shown
    assert ("run it again" in shown) == (do == "retry")


def test_the_commands_need_no_newer_click_than_pyproject_says() -> None:
    """Its types are generic at run time only from 8.5: before, a subscript ends every command."""
    bases = [
        ast.unparse(base)
        for path in Path(cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ]
    assert not [base for base in bases if base.startswith("click.") and "[" in base]
