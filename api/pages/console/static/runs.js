// The runs: a list with filters, and a page for each with its timeline.

import { ask, follow } from "./api.js";
import { actionsOf, applicationDocument } from "./application.js";
import { runDetail } from "./detail.js";
import { badge, between, element, json, moment, note, problem, show, table } from "./elements.js";
import { field, jsonInput } from "./forms.js";

const STATUSES = ["queued", "waiting", "running", "succeeded", "failed", "canceled"];

/** A run as it stands: status, progress, timeline, result. */
export function runCard(run) {
  const ended = Boolean(run.completedAt);
  return element("article", { class: "run" },
    element("p", { class: "line" }, badge(run.status), " ",
      element("a", { href: `#/runs/${run.runId}` }, run.runId),
      ended ? null : cancelButton(run)),
    run.waitingFor && !run.waitingFor.until ? element("p", { class: "hint" }, waits(run)) : null,
    progressOf(run, ended), timeline(run), signalForm(run), resultOf(run));
}

function progressOf(run, ended) {
  if (ended || !run.progress) return null;
  const { fraction, message } = run.progress;
  const percent = `${Math.round(fraction * 100)} %`;
  return element("div", { class: "progress" },
    element("progress", { max: 1, value: fraction, "aria-label": "Progress" }, percent),
    element("span", {}, message ? `${percent} · ${message}` : percent));
}

/** What it waits for, in words. */
function waits({ waitingFor }) {
  if (waitingFor?.kind === "group") return "Waits for other runs";
  if (waitingFor?.kind === "slot") return "Waits for a slot of its limit";
  if (!waitingFor?.name) return "Waits";
  return waitingFor.kind === "signal" ? `Waits for signal “${waitingFor.name}”`
    : `Waits (“${waitingFor.name}”)`;
}

/** Sends what the run waits for, where that is a signal. */
function signalForm(run) {
  if (run.waitingFor?.kind !== "signal") return null;
  const { name } = run.waitingFor;
  const data = field("signal-data", "Data", jsonInput("signal-data", "true", true),
    { description: "What the run is told." }, true);
  const place = element("div", { role: "status" });
  const send = async (event) => {
    event.preventDefault();
    data.tell(null);
    show(place);
    try {
      data.read();
    } catch (error) {
      data.tell(error.message);
      data.input.focus();
      return;
    }
    const path = `/api/runs/${run.runId}/signals/${encodeURIComponent(name)}`;
    try { // the text itself: a number of any size stays as it was written
      const { accepted } = await ask(path, { method: "POST", body: data.input.value.trim() });
      show(place, element("p", {}, accepted ? "Sent."
        : "Nothing has changed: one came before, or it is too late."));
    } catch (error) {
      show(place, problem(error));
    }
  };
  return element("form", { class: "signal", onsubmit: send }, data.row,
    element("button", {}, `Send “${name}”`), place);
}

function cancelButton(run) {
  const cancel = async (event) => {
    event.target.disabled = true;
    try {
      await ask(`/api/runs/${run.runId}/cancel`, { method: "POST" });
    } catch (error) {
      event.target.after(problem(error));
    }
  };
  return element("button", { type: "button", class: "quiet", onclick: cancel }, "Cancel");
}

/** When the run was enqueued, started and ended, and how long each part took. */
function timeline(run) {
  const attempts = run.attempts > 1 ? ` (start ${run.attempts} of the handler)` : "";
  const steps = [
    ["Enqueued", run.enqueuedAt, null],
    [`${waits(run)} until`, run.waitingFor?.until, null],
    [`Started${attempts}`, run.startedAt, between(run.enqueuedAt, run.startedAt)],
    [`Ended: ${run.status}`, run.completedAt,
      between(run.startedAt ?? run.enqueuedAt, run.completedAt)],
  ];
  const rows = steps.filter(([, time]) => time).map(([name, time, took]) =>
    element("li", {}, element("span", { class: "step" }, name), " ", moment(time),
      took ? element("span", { class: "kind" }, ` after ${took}`) : null));
  return element("ol", { class: "timeline", "aria-label": "Timeline" }, ...rows);
}

function resultOf(run) {
  if (!run.result) return null;
  if (run.result.success) return element("div", {}, element("h3", {}, "Result"), json(run.result.data));
  return element("div", {}, element("h3", {}, "Error"),
    element("p", { class: "error" }, run.result.error),
    run.result.debug ? element("pre", { tabindex: "0" }, run.result.debug) : null);
}

/** The run that has started this one. */
function parentOf(run) {
  if (!run.parent) return [];
  const link = element("a", { href: `#/runs/${run.parent}` }, run.parent);
  return [element("dt", {}, "Started by"), element("dd", {}, link)];
}

export async function runView(target, runId, signal) {
  const place = element("div", { "aria-live": "polite" });
  const detail = runDetail(runId, signal);
  show(target,
    element("p", { class: "back" }, element("a", { href: "#/runs" }, "← Runs")),
    element("h2", {}, "Run"), place, detail.place);
  const tell = (run) => {
    show(place,
      element("dl", {},
        element("dt", {}, "Action"), element("dd", {}, run.action),
        element("dt", {}, "Caller"), element("dd", {}, run.createdBy ?? "anonymous"),
        ...parentOf(run)),
      runCard(run));
    detail.follow(run);
  };
  try {
    await follow(runId, tell, signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    show(place, error.status === 404
      ? note("There is no such run.", "It may have expired, or belong to somebody else.")
      : problem(error));
  }
}

export async function runsView(target, _, signal) {
  const names = actionsOf(await applicationDocument()).map((action) => action.name);
  const action = filter("Action", "filter-action", names);
  const status = filter("Status", "filter-status", STATUSES);
  const list = element("div", { "aria-live": "polite" });
  let latest = new AbortController();
  const load = () => {
    latest.abort(); // an answer to an earlier question must not replace a later one's
    latest = new AbortController();
    const query = new URLSearchParams(
      Object.entries({ action: action.select.value, status: status.select.value })
        .filter(([, value]) => value));
    return firstPage(list, query, AbortSignal.any([signal, latest.signal]));
  };
  action.select.addEventListener("change", load);
  status.select.addEventListener("change", load);
  show(target, element("h2", {}, "Runs"),
    element("div", { class: "filters" }, action.row, status.row,
      element("button", { type: "button", class: "quiet", onclick: load }, "Refresh")),
    list);
  await load();
}

function filter(title, id, values) {
  const select = element("select", { id }, element("option", { value: "" }, "all"),
    ...values.map((value) => element("option", { value }, value)));
  return { select, row: element("div", { class: "field" }, element("label", { for: id }, title), select) };
}

async function firstPage(list, query, signal) {
  const rows = [];
  const page = async (after) => {
    const asked = new URLSearchParams(query);
    if (after) asked.set("after", after);
    try {
      const data = await ask(`/api/runs?${asked}`, { signal });
      signal.throwIfAborted();
      rows.push(...data.runs.map(row));
      showPage(list, rows, data.after && (() => page(data.after)), query);
    } catch (error) {
      if (error.name !== "AbortError") show(list, problem(error));
    }
  };
  await page(null);
}

function showPage(list, rows, more, query) {
  if (rows.length === 0 && !more) {
    show(list, String(query)
      ? note("No run fits these filters.", "Choose “all” to see every run.")
      : note("No runs yet.", element("a", { href: "#/actions" }, "Call an action"),
        " and it shows up here."));
    return;
  }
  show(list, table(["Action", "Status", "Caller", "Enqueued", "Took", "Run"], rows),
    more ? element("button", { type: "button", class: "quiet", onclick: more }, "Older runs") : null);
}

function row(run) {
  return [
    run.action,
    element("span", { title: run.error ?? (run.waitingFor ? waits(run) : "") }, badge(run.status)),
    run.createdBy ?? "anonymous",
    moment(run.enqueuedAt),
    between(run.startedAt, run.completedAt),
    element("a", { href: `#/runs/${run.runId}`, "aria-label": `Run ${run.runId}` },
      run.runId.slice(0, 8)),
  ];
}
