// Asks the API, with the token of who signed in. The token is kept for this tab only.

const KEY = "callboard-token";
const ROOT = document.documentElement.dataset.root;

/** What the API refused, or could not be asked: `status` is 0 where nothing answered. */
export class ApiError extends Error {
  constructor(message, status = 0, issues = []) {
    super(message);
    this.status = status;
    this.issues = issues;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  clear: () => sessionStorage.removeItem(KEY),
};

/** The subject that a token names. For display only: the server decides. */
export function subjectOf(text) {
  try {
    const payload = text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub ?? "");
  } catch {
    return "";
  }
}

async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  const given = { ...headers };
  if (token.get()) given.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) given["Content-Type"] = "application/json";
  try {
    return await fetch(ROOT + path, { method, body, headers: given, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.");
  }
}

async function parsed(response) {
  try {
    return await response.json();
  } catch {
    throw new ApiError(`The server answered ${response.status} without JSON.`, response.status);
  }
}

function refused(response, envelope) {
  const error = new ApiError(envelope.error ?? "Failed", response.status, envelope.issues);
  if (response.status === 401) window.dispatchEvent(new Event("callboard:unauthorized"));
  return error;
}

/** The data of an envelope; throws an ApiError for a failure. */
export async function ask(path, options) {
  const response = await send(path, options);
  const envelope = await parsed(response);
  if (!envelope.success) throw refused(response, envelope);
  return envelope.data;
}

/** The OpenAPI document. */
export async function openapi() {
  const response = await send("/api/openapi.json");
  const content = await parsed(response);
  if (!response.ok) throw refused(response, content);
  return content;
}

/** Start an action: the id of its run. `body` is the text of a JSON object. */
export async function start(action, body) {
  const headers = { Prefer: "respond-async" };
  const path = `/api/actions/${encodeURIComponent(action)}`;
  const response = await send(path, { method: "POST", body, headers });
  const runId = response.headers.get("Run-Id"); // a quick run may have ended by now, well or not
  if (!runId) throw refused(response, await parsed(response));
  return runId;
}

/** Start an internal action, as the owner: the id of its run. */
export async function startInternal(action, body) {
  const path = `/api/internal/${encodeURIComponent(action)}`;
  return (await ask(path, { method: "POST", body })).runId;
}

/** Follow a run: `tell` gets it at each change, the last time when it has ended. */
export async function follow(runId, tell, signal) {
  const path = `/api/runs/${encodeURIComponent(runId)}`;
  try {
    if (await stream(`${path}/events`, tell, signal)) return;
  } catch (error) {
    if (error.name === "AbortError" || error.status) throw error;
  }
  // A proxy may hold a stream back or cut it: then ask again and again.
  for (let told = ""; ;) {
    const run = await ask(`${path}?wait=10`, { signal });
    const text = JSON.stringify(run);
    if (text !== told) tell(run);
    told = text;
    if (run.completedAt) return;
  }
}

/** Read server-sent events with fetch, which unlike EventSource can send a token. */
async function stream(path, tell, signal) {
  const response = await send(path, { signal });
  if (!response.ok) throw refused(response, await parsed(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let run = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return Boolean(run?.completedAt);
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) tell((run = JSON.parse(data.slice(6))));
    }
  }
}
