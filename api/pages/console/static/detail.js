// What the owner alone sees of a run, below it: the steps that its handler has kept.

import { ask } from "./api.js";
import { between, element, moment, show, table } from "./elements.js";

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
      if (mine === number) show(place, stepsOf(detail));
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

function stepsOf({ steps }) {
  if (!steps.length) return null;
  const come = new Set(steps.filter(({ kind }) => kind === "signal").map(({ name }) => name));
  const rows = steps.filter(({ kind, name }) => kind !== "wait" || !come.has(name)).map(stepRow);
  return element("section", {}, element("h3", {}, "Steps"),
    table(["Step", "Kind", "Began", "Took"], rows));
}

function stepRow({ kind, name, startedAt, completedAt }) {
  const took = startedAt === completedAt ? null : between(startedAt, completedAt);
  return [name, KINDS[kind] ?? kind, moment(startedAt), took];
}
