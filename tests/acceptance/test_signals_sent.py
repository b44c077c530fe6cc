"""Signals, from the link in a handler to the handler that goes on: the real stack, over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from local_stack import Stack
from playwright.sync_api import Page, expect

BOTH = pytest.mark.parametrize("action", ["approval", "asyncApproval"])


def waiting(stack: Stack, action: str) -> tuple[str, str]:
    """A run that waits for its signal, and the link that sends it."""
    run_id = stack.call(action, prefer="respond-async").headers["Run-Id"]
    stack.wait_for_status(run_id, "waiting")
    return run_id, shown(stack, run_id)["progress"]["message"]


def shown(stack: Stack, run_id: str) -> dict:
    headers = {"Authorization": f"Bearer {stack.token()}"}
    return httpx.get(f"{stack.url}/api/runs/{run_id}", headers=headers, timeout=60).json()["data"]


def run_page(open_page: Callable[..., Page], stack: Stack, run_id: str, as_user: str) -> Page:
    """The run in the console, after a sign-in, which shows it once: what is typed then stays."""
    page = open_page(f"{stack.url}/#/runs/{run_id}")
    page.get_by_label("Token").fill(stack.token(as_user))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation")).to_be_visible()
    return page


@BOTH
def test_a_link_sends_what_a_run_waits_for_once(app_stack: Stack, action: str) -> None:
    run_id, link = waiting(app_stack, action)
    assert link.startswith(f"{app_stack.url}/api/runs/{run_id}/signals/approve?signature=")
    waits = shown(app_stack, run_id)["waitingFor"]
    assert (waits["kind"], waits["name"]) == ("signal", "approve")
    assert httpx.get(link, timeout=60).status_code == 200
    assert app_stack.status(run_id) == "waiting"
    first, second = (httpx.post(link, json={"by": by}, timeout=60) for by in ("bob", "eve"))
    assert first.json()["data"] == {"accepted": True}
    assert second.status_code == 404 or second.json()["data"] == {"accepted": False}  # as it ends
    run = app_stack.run(run_id)
    assert (run["result"]["data"], run["attempts"]) == ({"came": {"by": "bob"}}, 1)
    assert httpx.post(link, json=1, timeout=60).status_code == 404
    signature = link.partition("signature=")[2]
    logs = [file for file in (app_stack.data_dir / "log").iterdir() if file.is_file()]
    assert any(run_id in file.read_text() for file in logs)
    assert not any(signature in file.read_text() for file in logs)


def test_a_person_presses_the_button(app_stack: Stack, open_page: Callable[..., Page]) -> None:
    run_id, link = waiting(app_stack, "approval")
    page = open_page(link, java_script_enabled=False)
    page.get_by_role("button", name="Send “approve”").click()
    expect(page.get_by_role("heading")).to_have_text("Sent")
    assert app_stack.run(run_id)["result"]["data"] == {"came": True}
    expect(open_page(link).get_by_role("heading")).to_have_text("This link leads nowhere")


def test_the_console_says_what_a_run_waits_for_and_sends_it(
    app_stack: Stack, open_page: Callable[..., Page]
) -> None:
    run_id, _ = waiting(app_stack, "asyncApproval")
    page = run_page(open_page, app_stack, run_id, "alice")
    expect(page.get_by_role("list", name="Timeline")).to_contain_text("Waits for signal “approve”")
    page.get_by_label("Data").fill("{by")
    page.get_by_role("button", name="Send “approve”").click()
    expect(page.locator("#signal-data-error")).to_contain_text("not JSON")
    page.get_by_label("Data").fill('{"by": "alice"}')
    page.get_by_role("button", name="Send “approve”").click()
    expect(page.locator(".badge")).to_have_text("succeeded")
    expect(page.locator("pre")).to_contain_text('"by": "alice"')


def test_the_owner_sees_the_steps_in_the_console(
    app_stack: Stack, open_page: Callable[..., Page]
) -> None:
    run_id, _ = waiting(app_stack, "approval")
    page = run_page(open_page, app_stack, run_id, "owner")
    steps = page.locator("section", has=page.get_by_role("heading", name="Steps"))
    rows = steps.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("prepare")
    expect(rows.nth(1)).to_contain_text("waits for a signal")
    page.get_by_role("button", name="Send “approve”").click()
    expect(page.locator(".line .badge")).to_have_text("succeeded")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).not_to_contain_text("waits")
