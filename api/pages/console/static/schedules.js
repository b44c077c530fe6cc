// The schedules: when each fires next, its history; pause, resume and trigger.

import { ask } from "./api.js";
import { badge, between, element, moment, note, problem, show, table } from "./elements.js";

const path = (name, verb) => `/api/schedules/${encodeURIComponent(name)}/${verb}`;

export async function schedulesView(target, _, signal) {
  const list = element("div");
  show(target, element("h2", {}, "Schedules"), list);
  await load(list, signal);
}

async function load(list, signal) {
  const cards = element("ul", { class: "cards" });
  const page = async (after) => {
    try {
      const query = after ? `?after=${encodeURIComponent(after)}` : "";
      const data = await ask(`/api/schedules${query}`, { signal });
      cards.append(...data.schedules.map(card));
      showPage(list, cards, data.after && (() => page(data.after)));
    } catch (error) {
      if (error.name !== "AbortError") show(list, refusal(error));
    }
  };
  await page(null);
}

function showPage(list, cards, more) {
  show(list, cards.children.length ? cards
    : note("There are no schedules yet.", "Declare them in actions/schedules.py."),
    more ? element("button", { type: "button", class: "quiet", onclick: more }, "More schedules")
      : null);
}

function refusal(error) {
  if (error.status !== 403) return problem(error);
  return note("Schedules are for the owner.",
    "They run with the owner's rights, so only the owner sees, pauses or triggers them. ",
    "Sign in with the owner's token.");
}

function card(schedule) {
  const told = element("p", { class: "hint", role: "status" });
  const act = (verb, say) => async (event) => {
    event.target.disabled = true;
    try {
      const data = await ask(path(schedule.name, verb), { method: "POST" });
      if (say) show(told, ...say(data));
      else shown.replaceWith(card(data));
    } catch (error) {
      show(told, problem(error));
    } finally {
      event.target.disabled = false;
    }
  };
  const triggered = (data) => ["Started ",
    element("a", { href: `#/runs/${data.runId}` }, `run ${data.runId.slice(0, 8)}`)];
  const button = (text, onclick) => element("button", { type: "button", class: "quiet", onclick,
    "aria-label": `${text} ${schedule.name}` }, text);
  const shown = element("li", {},
    element("p", { class: "line" }, element("strong", {}, schedule.name), " ",
      schedule.paused ? badge("paused") : null),
    element("dl", {},
      element("dt", {}, "Action"), element("dd", {},
        element("a", { href: `#/actions/${schedule.action}` }, schedule.action)),
      element("dt", {}, "When"), element("dd", {}, timing(schedule)),
      element("dt", {}, "Next fire"), element("dd", {}, next(schedule)),
      element("dt", {}, "Last fire"), element("dd", {}, moment(schedule.lastFire))),
    element("p", { class: "line" },
      button("Trigger", act("trigger", triggered)),
      schedule.paused ? button("Resume", act("resume")) : button("Pause", act("pause")),
      element("a", { href: `#/schedules/${schedule.name}` }, "History")),
    told);
  return shown;
}

function timing(schedule) {
  if (schedule.cron) return `${schedule.cron} (${schedule.timezone})`;
  return schedule.everyMinutes === 1 ? "every minute" : `every ${schedule.everyMinutes} minutes`;
}

function next(schedule) {
  if (!schedule.nextFire) return "none while it is paused";
  const left = Math.max(new Date(schedule.nextFire) - Date.now(), 1000);
  return element("span", {}, moment(schedule.nextFire), ` (in ${between(0, left)})`);
}

export async function historyView(target, name, signal) {
  const list = element("div");
  show(target,
    element("p", { class: "back" }, element("a", { href: "#/schedules" }, "← Schedules")),
    element("h2", {}, `Fires of ${name}`), list);
  try {
    const { fires } = await ask(path(name, "history"), { signal });
    show(list, fires.length
      ? table(["Planned", "Outcome", "Started", "Took", "Starts", "Run"], fires.map(row))
      : note("It has not fired yet.", "Its first fire shows up here."));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    show(list, refusal(error));
  }
}

function row(fire) {
  return [
    element("span", {}, moment(fire.plannedAt), fire.manual ? " (by hand)" : ""),
    badge(fire.outcome ?? "running"),
    moment(fire.startedAt),
    between(fire.startedAt, fire.completedAt),
    String(fire.attempts),
    fire.runId ? element("a", { href: `#/runs/${fire.runId}`, "aria-label": `Run ${fire.runId}` },
      fire.runId.slice(0, 8)) : null,
  ];
}
