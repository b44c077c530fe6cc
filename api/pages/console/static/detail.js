// What the owner alone sees of a run, below it: its params, attempts, log, steps and children.

import { ask } from "./api.js";
import { badge, between, element, json, moment, problem, show, table } from "./elements.js";

const PAUSE = 2000; // milliseconds between two looks while only the progress changes

const KINDS = { step: "step", sleep: "sleep", wait: "waits for a signal", signal: "signal" };

/** A place for it, and `follow(run)` to be called at each change of the run. */
export function runDetail(runId, signal) {
  const place = element("div", { "aria-live": "polite" });
  let hidden = false;
  let seen = "";
  let last = 0;
  let number = 0;
  const look = async () => {
    const mine = ++number; // an earlier answer must not replace a later one
    try {
      const detail = await ask(`/api/runs/${runId}/detail`, { signal });
      if (mine === number) {
        show(place, attemptsOf(detail), logOf(detail), stepsOf(detail), childrenOf(detail, signal),
          paramsOf(detail));
      }
    } catch (error) {
      if (error.status === 403) hidden = true; // not the owner
    }
  };
  const follow = async (run) => {
    const state = `${run.status} ${run.attempts}`;
    if (hidden || (state === seen && Date.now() - last < PAUSE)) return;
    seen = state;
    last = Date.now();
    await look();
  };
  return { place, follow };
}

function section(title, ...parts) {
  return element("section", {}, element("h3", {}, title), ...parts);
}

function paramsOf({ params }) {
  return section("Params", params === null
    ? element("p", { class: "hint" }, "They are no longer kept.") : json(params));
}

/** Each start of the handler; a traceback is folded away, but for that of the last one. */
function attemptsOf({ attempts }) {
  if (!attempts.length) return null;
  const rows = attempts.map(({ attempt, status, startedAt, completedAt, worker, error }) =>
    [String(attempt), badge(status), moment(startedAt), between(startedAt, completedAt), worker,
      error]);
  const traced = attempts.filter(({ traceback }) => traceback);
  return section("Attempts",
    table(["Attempt", "Status", "Started", "Took", "Worker", "Error"], rows),
    ...traced.map(({ attempt, traceback }) =>
      element("details", { open: attempt === traced.at(-1).attempt },
        element("summary", {}, `Traceback of attempt ${attempt}`),
        element("pre", { tabindex: "0" }, traceback))));
}

function logOf({ log, attempts }) {
  if (!log.length) return null;
  const dropped = attempts.reduce((sum, { linesDropped }) => sum + linesDropped, 0);
  const lines = log.map(({ attempt, at, level, source, text }) =>
    `${at} ${attempts.length > 1 ? `[${attempt}] ` : ""}${level} ${source}: ${text}`);
  return section("Log",
    dropped ? element("p", { class: "hint" }, `${dropped} earlier lines are not kept.`) : null,
    element("pre", { tabindex: "0" }, lines.join("\n")));
}

/** The runs that it has started, newest first. */
function childrenOf({ runId, children }, signal) {
  if (!children.runs.length) return null;
  const list = element("div", {});
  const rows = [];
  const add = ({ runs, after }) => {
    rows.push(...runs.map(childRow));
    const more = async () => {
      try {
        add(await ask(`/api/runs?parent=${runId}&after=${encodeURIComponent(after)}`, { signal }));
      } catch (error) {
        if (error.name !== "AbortError") list.append(problem(error));
      }
    };
    show(list, table(["Action", "Status", "Run", "Error"], rows),
      after ? element("button", { type: "button", class: "quiet", onclick: more }, "Older runs")
        : null);
  };
  add(children);
  return section("Has started", list);
}

function childRow(run) {
  const link = element("a", { href: `#/runs/${run.runId}`, "aria-label": `Run ${run.runId}` },
    run.runId.slice(0, 8));
  return [run.action, badge(run.status), link, run.error];
}

function stepsOf({ steps }) {
  if (!steps.length) return null;
  const come = new Set(steps.filter(({ kind }) => kind === "signal").map(({ name }) => name));
  const rows = steps.filter(({ kind, name }) => kind !== "wait" || !come.has(name)).map(stepRow);
  return section("Steps", table(["Step", "Kind", "Began", "Took"], rows));
}

function stepRow({ kind, name, startedAt, completedAt }) {
  const took = startedAt === completedAt ? null : between(startedAt, completedAt);
  return [name, KINDS[kind] ?? kind, moment(startedAt), took];
}
