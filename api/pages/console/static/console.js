// The console: signs in, and shows the view that the address names.

import { actionView, actionsView, internalView } from "./actions.js";
import { ask, subjectOf, token } from "./api.js";
import { forgetDocument } from "./application.js";
import { problem, show } from "./elements.js";
import { runView, runsView } from "./runs.js";
import { historyView, schedulesView } from "./schedules.js";

// "#/runs" -> a list, "#/runs/<id>" -> one of it
const VIEWS = {
  actions: [actionsView, actionView],
  internal: [actionsView, internalView],
  runs: [runsView, runView],
  schedules: [schedulesView, historyView],
};

const find = (selector) => document.querySelector(selector);
const view = find("#view");
let leaving = new AbortController(); // ends the requests of a view that is left

async function render() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const signedIn = Boolean(token.get());
  find("nav").hidden = find(".who").hidden = !signedIn;
  find("#sign-in").hidden = signedIn;
  show(view);
  if (!signedIn) return;
  show(find("#caller"), subjectOf(token.get()));
  const [part, name] = location.hash.replace(/^#\//, "").split("/");
  const [list, one] = VIEWS[part] ?? VIEWS.actions;
  mark(VIEWS[part] && part !== "internal" ? part : "actions");
  const target = document.createElement("div");
  show(view, target);
  try {
    await (name ? one(target, decodeURIComponent(name), signal) : list(target, null, signal));
  } catch (error) {
    if (error.name !== "AbortError") show(target, problem(error));
  }
}

function mark(part) {
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function signIn(event) {
  event?.preventDefault();
  const input = find("#token");
  const button = find("#sign-in button");
  const told = find("#token-error");
  show(told);
  token.set(input.value.trim().replace(/^Bearer\s+/i, ""));
  button.disabled = true;
  try {
    await ask("/api/runs?limit=1");
    input.value = "";
    await render();
    find("#content").focus({ preventScroll: true });
  } catch (error) {
    token.clear();
    show(told, error.status === 401 ? "This token is not accepted: it may have expired."
      : error.message);
    input.focus();
  } finally {
    button.disabled = false;
  }
}

function signOut() {
  token.clear();
  forgetDocument();
  render();
  find("#token").focus();
}

/** Sign in with a link of `callboard up`: its token leaves the address before anything else. In
 * production a link signs nobody in: it could be anybody's. */
function followLink() {
  const [, given] = /^#token=([\w.-]+)$/.exec(location.hash) ?? [];
  if (!given) return false;
  history.replaceState(null, "", location.pathname + location.search);
  if (!("development" in document.documentElement.dataset)) return false;
  signOut();
  find("#token").value = given;
  signIn();
  return true;
}

find("#sign-in form").addEventListener("submit", signIn);
find("#sign-out").addEventListener("click", signOut);
window.addEventListener("hashchange", () => {
  if (followLink()) return;
  if (!location.hash || location.hash.startsWith("#/")) render(); // not "Skip to content"
});
window.addEventListener("callboard:unauthorized", () => {
  const was = token.get() && find("#sign-in").hidden;
  if (was) {
    signOut();
    show(find("#token-error"), "The token is no longer accepted. Sign in again.");
  }
});
if (!followLink()) render();
