// Builds what is shown. Text goes in as text only: nothing is ever parsed as HTML.

/** An element: element("a", {href, class: "x", onclick}, "text", child, ...). */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Put these in place of all that `target` holds. */
export function show(target, ...children) {
  target.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** What a developer wrote, as children: what is between backticks is code. */
export function written(text) {
  return (text ?? "").split(/`+([^`]+)`+/).map((part, index) =>
    index % 2 ? element("code", {}, part) : part);
}

/** A status or outcome, told by its text and by its colour. */
export function badge(status) {
  return element("span", { class: `badge ${status}` }, status);
}

/** What is said where nothing else is to be shown. */
export function note(title, ...text) {
  return element("div", { class: "note" }, element("p", {}, element("strong", {}, title)),
    element("p", {}, ...text));
}

/** An error that `api.js` raised, with what the server said is wrong with each field. */
export function problem(error) {
  const issues = error.issues ?? [];
  const rows = issues.map((issue) => element("li", {}, `${issue.path || "body"}: ${issue.message}`));
  return element("div", { class: "error", role: "alert" }, element("p", {}, error.message),
    rows.length ? element("ul", {}, ...rows) : null);
}

/** JSON for people. */
export function json(value) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  return element("pre", { tabindex: "0" }, text);
}

/** A table; on a narrow screen each row becomes a card whose cells carry these titles. */
export function table(titles, rows) {
  const head = titles.map((title) => element("th", { scope: "col" }, title));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, index) =>
    element("td", { "data-title": titles[index] }, cell ?? "–"))));
  return element("div", { class: "table" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)));
}

/** A moment in this browser's time zone; the exact one as a tooltip. */
export function moment(text) {
  if (!text) return "–";
  const time = new Date(text);
  const today = time.toDateString() === new Date().toDateString();
  const shown = today ? time.toLocaleTimeString()
    : time.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return element("time", { datetime: text, title: text }, shown);
}

/** The time between two moments, such as "1.2 s"; null while one is missing. */
export function between(from, to) {
  if (from === null || to === null) return null;
  const milliseconds = new Date(to) - new Date(from);
  if (milliseconds < 1000) return `${milliseconds} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 120 ? `${Math.round(minutes)} min` : `${Math.round(minutes / 60)} h`;
}
