// The actions: a list, and a page for each to call it.

import { follow, start } from "./api.js";
import { actionsOf, applicationDocument } from "./application.js";
import { element, note, problem, show, written } from "./elements.js";
import { paramsForm } from "./forms.js";
import { runCard } from "./runs.js";

export async function actionsView(target) {
  const actions = actionsOf(await applicationDocument());
  const rows = actions.map((action) => element("li", {},
    element("a", { href: `#/actions/${action.name}` }, action.name),
    action.summary === action.name ? null : element("p", { class: "hint" }, action.summary)));
  show(target, element("h2", {}, "Actions"),
    rows.length ? element("ul", { class: "cards" }, ...rows)
      : note("There are no actions yet.", "Put a function with @action into a module of actions/."));
}

export async function actionView(target, name, signal) {
  const document = await applicationDocument();
  const action = actionsOf(document).find((found) => found.name === name);
  if (!action) {
    show(target, note(`There is no action ${name}.`, element("a", { href: "#/actions" },
      "See all actions")));
    return;
  }
  const form = paramsForm(action.requestBody.content["application/json"].schema, document);
  const outcome = element("div", { class: "outcome", "aria-live": "polite" });
  const button = element("button", {}, "Run");
  const submit = (event) => {
    event.preventDefault();
    call(action, form, button, outcome, signal);
  };
  show(target,
    element("p", { class: "back" }, element("a", { href: "#/actions" }, "← Actions")),
    element("h2", {}, action.name),
    element("p", { class: "prose" }, ...written(action.description)),
    element("form", { onsubmit: submit }, ...form.elements, button),
    outcome);
}

async function call(action, form, button, outcome, signal) {
  const body = form.read();
  if (body === null) return;
  button.disabled = true;
  show(outcome, element("p", { class: "hint" }, "Calling …"));
  try {
    const runId = await start(action.name, body);
    await follow(runId, (run) => show(outcome, runCard(run)), signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    error.issues = form.tell(error.issues ?? []);
    show(outcome, problem(error));
  } finally {
    button.disabled = false;
  }
}
