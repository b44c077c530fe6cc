"""The console, in a real browser, against the real stack."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from local_stack import Stack
from playwright.sync_api import Page, expect

HOSTILE = "<img src=x onerror=document.title=1>"


@pytest.fixture
def console(open_page: Callable[..., Page]) -> Callable[..., Page]:
    """Sign in: ``console(stack, "#/runs", as_user="owner")``."""

    def sign_in(stack: Stack, view: str = "", *, as_user: str = "alice", **options) -> Page:
        page = open_page(f"{stack.url}/{view}", **options)
        page.get_by_label("Token").fill(stack.token(as_user))
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("navigation")).to_be_visible()
        return page

    return sign_in


def run_action(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def test_a_run_shows_who_started_it_and_until_when_it_waits(app_stack, console):
    accepted = app_stack.call("startLater", {"seconds": 600})
    child = accepted.json()["data"]["runId"]
    page = console(app_stack, f"#/runs/{child}")
    timeline = page.get_by_role("list", name="Timeline")
    expect(timeline.get_by_role("listitem").nth(1)).to_contain_text("Waits until")
    page.get_by_role("link", name=accepted.headers["Run-Id"]).click()
    expect(page.get_by_role("definition").first).to_have_text("startLater")
    app_stack.cancel(child)


def test_the_owner_sees_why_a_run_failed_and_what_it_started(app_stack, console):
    run_id = app_stack.call("failLoudly").headers["Run-Id"]
    page = console(app_stack, f"#/runs/{run_id}", as_user="owner")
    expect(page.get_by_text("Traceback of attempt 1")).to_be_visible()
    expect(page.get_by_text("printed line")).to_be_visible()
    page.locator("section", has_text="Has started").get_by_role("link").click()
    expect(page.get_by_role("definition").first).to_have_text("started")
    page.get_by_role("link", name=run_id).click()
    expect(page.get_by_role("definition").first).to_have_text("failLoudly")


def test_the_owner_starts_internal_actions_and_nobody_else_sees_them(app_stack, console):
    page = console(app_stack, as_user="owner")
    page.get_by_role("link", name="allStarted").click()
    page.get_by_label("Params").fill('{"by": "console"}')
    run_action(page)
    expect(page.locator(".badge.succeeded")).to_be_visible()
    page = console(app_stack)
    expect(page.get_by_role("link", name="failLoudly")).to_be_visible()
    expect(page.get_by_role("link", name="allStarted")).to_have_count(0)


def test_a_bad_token_is_told_and_not_kept(app_stack, open_page):
    page = open_page(app_stack.url)
    page.get_by_label("Token").fill("not-a-token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not accepted")
    assert page.evaluate("sessionStorage.length") == 0


def test_the_token_stays_in_the_tab(app_stack, console):
    page = console(app_stack)
    expect(page.locator("#caller")).to_have_text("alice")
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    assert page.context.cookies() == []
    assert "ey" not in page.url
    page.reload()
    expect(page.get_by_role("heading", name="Actions")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_link_signs_in_and_its_token_leaves_the_address(app_stack, open_page):
    page = open_page(f"{app_stack.url}/#token={app_stack.token('owner')}")
    expect(page.locator("#caller")).to_have_text("owner")
    assert page.url == f"{app_stack.url}/"
    page.reload()
    expect(page.locator("#caller")).to_have_text("owner")
    page.evaluate(f"location.hash = '#token={app_stack.token('alice')}'")
    expect(page.locator("#caller")).to_have_text("alice")
    assert page.url == f"{app_stack.url}/"


def test_a_link_with_a_bad_token_is_told(app_stack, open_page):
    page = open_page(f"{app_stack.url}/#token=not.a.token")
    expect(page.get_by_role("alert")).to_contain_text("not accepted")
    assert page.url == f"{app_stack.url}/"
    assert page.evaluate("sessionStorage.length") == 0


def test_nothing_of_the_application_is_shown_before_a_sign_in(app_stack, open_page):
    page = open_page(app_stack.url)
    expect(page.get_by_label("Token")).to_be_visible()
    assert "orderTickets" not in page.content()


def test_a_form_is_made_from_the_model(app_stack, console):
    page = console(app_stack, "#/actions/orderTickets")
    expect(page.get_by_label("event")).to_have_attribute("maxlength", "40")
    expect(page.get_by_label("tickets")).to_have_attribute("type", "number")
    expect(page.get_by_label("tickets")).to_have_attribute("required", "")
    expect(page.get_by_label("price")).to_have_value("9.5")
    expect(page.get_by_label("seat").locator("option")).to_have_count(3)
    page.get_by_label("event").fill("evt_1")
    page.get_by_label("tickets").fill("2")
    page.get_by_label("guests").fill('[{"name": "Ada"}]')
    run_action(page)
    expect(page.locator(".badge")).to_have_text("succeeded")
    expect(page.locator("pre")).to_contain_text('"total": 19')


def test_what_is_between_backticks_is_code(app_stack, console):
    page = console(app_stack, "#/actions/slow")
    expect(page.locator(".prose")).to_contain_text("Takes seconds and leaves a line")
    expect(page.locator(".prose code")).to_have_text("seconds")


def test_what_the_server_finds_wrong_is_told_beside_the_field(app_stack, console):
    page = console(app_stack, "#/actions/orderTickets")
    page.get_by_label("event").fill("evt_1")
    page.get_by_label("tickets").fill("2")
    page.get_by_label("guests").fill('[{"age": 3}]')
    run_action(page)
    expect(page.locator("#param-guests-error")).to_have_text("Field required")
    expect(page.get_by_label("guests")).to_be_focused()
    page.get_by_label("guests").fill("[")
    run_action(page)
    expect(page.locator("#param-guests-error")).to_contain_text("not JSON")


def test_progress_and_result_are_shown_live(app_stack, console, tmp_path):
    gates = [tmp_path / "first", tmp_path / "second"]
    page = console(app_stack, "#/actions/stepwise")
    page.get_by_label("Params").fill(json.dumps({"until": [str(gate) for gate in gates]}))
    run_action(page)
    expect(page.locator(".badge")).to_have_text("running")
    for step, gate in enumerate(gates):
        expect(page.locator(".progress")).to_contain_text(re.compile(rf"{step}0? % · step {step}"))
        gate.touch()
    expect(page.locator(".badge")).to_have_text("succeeded")
    expect(page.locator("pre")).to_contain_text('"attempt": 1')


def test_a_running_run_is_canceled(app_stack, console):
    page = console(app_stack, "#/actions/slow")
    page.get_by_label("Params").fill('{"seconds": 50}')
    run_action(page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".badge")).to_have_text("canceled")


def test_a_failure_is_told(app_stack, console):
    page = console(app_stack, "#/actions/refuse")
    run_action(page)
    expect(page.locator(".run .error")).to_have_text("Event not found")


def test_hostile_text_is_shown_as_text(app_stack, console):
    page = console(app_stack, "#/actions/echo")
    page.get_by_label("Params").fill(json.dumps({"text": HOSTILE}))
    run_action(page)
    expect(page.locator("pre")).to_contain_text(HOSTILE)
    assert page.locator("pre img").count() == 0
    assert page.title() == "Callboard"


def test_runs_are_listed_filtered_and_opened(app_stack, console):
    app_stack.call("refuse", as_user="lister")
    app_stack.call("echo", as_user="lister")
    page = console(app_stack, "#/runs", as_user="lister")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Status").select_option("failed")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Status").select_option("canceled")
    expect(page.locator(".note")).to_contain_text("No run fits these filters.")
    page.get_by_label("Status").select_option("")
    page.get_by_label("Action").select_option("echo")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody a").click()
    expect(page.get_by_role("list", name="Timeline").locator("li")).to_have_count(3)
    expect(page.locator("pre")).to_contain_text('"userId": "lister"')


def test_an_empty_list_says_what_to_do(app_stack, console):
    page = console(app_stack, "#/runs", as_user="newcomer")
    expect(page.locator(".note")).to_contain_text("No runs yet.")


def test_the_owner_looks_after_the_schedules(stack, console):
    page = console(stack, "#/schedules", as_user="owner")
    heartbeat = page.locator("li", has_text="every minute")
    expect(heartbeat).to_contain_text(re.compile(r"\(in .+\)"))
    page.get_by_role("button", name="Pause heartbeat").click()
    expect(heartbeat).to_contain_text("none while it is paused")
    page.get_by_role("button", name="Resume heartbeat").click()
    expect(heartbeat).to_contain_text(re.compile(r"\(in .+\)"))  # it is shown anew
    page.get_by_role("button", name="Trigger heartbeat").click()
    expect(heartbeat.get_by_role("status")).to_contain_text("Started run")
    heartbeat.get_by_role("link", name="History").click()
    expect(page.locator("tbody")).to_contain_text("(by hand)")


def test_schedules_of_handlers_come_in_pages(app_stack, console):
    names = ["digest:a", "digest:b", "digest:c"]
    app_stack.call("putSchedules", {"names": names})
    try:
        page = console(app_stack, as_user="owner")
        page.route(  # pages of one
            re.compile(r"/api/schedules(\?.*)?$"),
            lambda route: route.continue_(url=with_limit(route.request.url)),
        )
        page.get_by_role("navigation").get_by_role("link", name="Schedules").click()
        cards = page.locator(".cards > li")
        for count in (1, 2, 3):
            expect(cards).to_have_count(count)
            if count < 3:
                page.get_by_role("button", name="More schedules").click()
        expect(page.get_by_role("button", name="More schedules")).to_have_count(0)
        page.get_by_role("button", name="Pause digest:c").click()
        expect(cards.nth(2)).to_contain_text("none while it is paused")
        expect(cards).to_have_count(3)
    finally:
        app_stack.call("removeSchedules", {"names": names})


def with_limit(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}limit=1"


def test_others_are_told_that_schedules_are_the_owners(stack, console):
    page = console(stack, "#/schedules")
    expect(page.locator(".note")).to_contain_text("Schedules are for the owner.")


def test_an_application_without_schedules_says_so(app_stack, console):
    page = console(app_stack, "#/schedules", as_user="owner")
    expect(page.locator(".note")).to_contain_text("There are no schedules yet.")


def test_the_keyboard_is_enough(app_stack, open_page):
    """Sign in, choose an action, run it: Tab, Enter and letters only."""
    page = open_page(app_stack.url)
    expect(page.get_by_label("Token")).to_be_visible()
    page.keyboard.press("Tab")  # "Skip to content"
    page.keyboard.press("Tab")
    page.keyboard.insert_text(app_stack.token())
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="echo")).to_be_visible()
    while page.evaluate("document.activeElement.textContent") != "echo":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Params")).to_be_visible()
    while page.evaluate("document.activeElement.textContent") != "Run":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".badge")).to_have_text("succeeded")


@pytest.mark.parametrize("view", ["", "#/actions/orderTickets", "#/runs", "#/schedules"])
def test_a_phone_is_wide_enough(app_stack, console, view):
    phone = {"width": 360, "height": 640}
    page = console(app_stack, view, as_user="owner", viewport=phone)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(("path", "shown"), [("/", "body"), ("/docs", ".swagger-ui")])
def test_it_is_light_or_dark_as_the_system_is(app_stack, open_page, path, shown):
    brightness = """element => {
        const [red, green, blue, alpha] = getComputedStyle(element).backgroundColor
            .match(/[\\d.]+/g).map(Number);
        return alpha === 0 ? 255 : red;
    }"""
    for scheme, low, high in (("light", 200, 255), ("dark", 0, 60)):
        page = open_page(app_stack.url + path, color_scheme=scheme)
        assert low <= page.locator(shown).first.evaluate(brightness) <= high


def test_swagger_ui_authorizes_and_calls(app_stack, open_page):
    page = open_page(f"{app_stack.url}/docs")
    page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".auth-container")
    dialog.locator("input").fill(app_stack.token("alice"))
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").click()
    operation = page.locator(".opblock", has_text="/api/actions/orderTickets")
    operation.locator(".opblock-summary-control").click()
    operation.locator("textarea").fill('{"event": "evt_1", "tickets": 2}')
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    expect(answer.locator("tbody .response-col_status").first).to_contain_text("200")
    expect(answer.locator("tbody .response-col_description").first).to_contain_text("19")
