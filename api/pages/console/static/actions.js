// The actions: a list, and a page for each to call it.

import { ask, follow, start, startInternal } from "./api.js";
import { actionsOf, applicationDocument } from "./application.js";
import { element, note, problem, show, written } from "./elements.js";
import { paramsForm } from "./forms.js";
import { runCard } from "./runs.js";

export async function actionsView(target, _, signal) {
  const actions = actionsOf(await applicationDocument());
  const rows = actions.map(({ name, summary }) => card(`#/actions/${name}`, name, summary));
  const owners = element("div", {});
  show(target, element("h2", {}, "Actions"),
    rows.length ? element("ul", { class: "cards" }, ...rows)
      : note("There are no actions yet.", "Put a function with @action into a module of actions/."),
    owners);
  const internal = await internalActions(signal);
  if (!internal.length) return;
  show(owners, element("h2", {}, "Internal actions"),
    element("p", { class: "hint" }, "No client can call them: runs, schedules and you start them."),
    element("ul", { class: "cards" }, ...internal.map(({ name, description }) =>
      card(`#/internal/${name}`, name, description.split("\n")[0] || name))));
}

function card(href, name, summary) {
  return element("li", {}, element("a", { href }, name),
    summary === name ? null : element("p", { class: "hint" }, summary));
}

/** Those of the application; none for anybody but its owner. */
async function internalActions(signal) {
  try {
    return (await ask("/api/internal", { signal })).actions;
  } catch (error) {
    if (error.status === 403) return [];
    throw error;
  }
}

export async function internalView(target, name, signal) {
  const action = (await internalActions(signal)).find((found) => found.name === name);
  if (!action) {
    unknown(target, name);
    return;
  }
  formView(target, { name, description: action.description }, startInternal,
    paramsForm(action.params, action.params), signal);
}

export async function actionView(target, name, signal) {
  const document = await applicationDocument();
  const action = actionsOf(document).find((found) => found.name === name);
  if (!action) {
    unknown(target, name);
    return;
  }
  const { schema } = action.requestBody.content["application/json"];
  formView(target, action, start, paramsForm(schema, document), signal);
}

function unknown(target, name) {
  show(target, note(`There is no action ${name}.`, element("a", { href: "#/actions" },
    "See all actions")));
}

/** A form that starts the action, and below it the run. */
function formView(target, action, begin, form, signal) {
  const outcome = element("div", { class: "outcome", "aria-live": "polite" });
  const button = element("button", {}, "Run");
  const submit = (event) => {
    event.preventDefault();
    call(action, begin, form, button, outcome, signal);
  };
  show(target,
    element("p", { class: "back" }, element("a", { href: "#/actions" }, "← Actions")),
    element("h2", {}, action.name),
    element("p", { class: "prose" }, ...written(action.description)),
    element("form", { onsubmit: submit }, ...form.elements, button),
    outcome);
}

async function call(action, begin, form, button, outcome, signal) {
  const body = form.read();
  if (body === null) return;
  button.disabled = true;
  show(outcome, element("p", { class: "hint" }, "Calling …"));
  try {
    const runId = await begin(action.name, body);
    await follow(runId, (run) => show(outcome, runCard(run)), signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    error.issues = form.tell(error.issues ?? []);
    show(outcome, problem(error));
  } finally {
    button.disabled = false;
  }
}
