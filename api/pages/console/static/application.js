// What the application offers, from its OpenAPI document.

import { openapi } from "./api.js";

let known = null; // the document; it changes with a new version of the application only

/** The OpenAPI document, read once after each sign-in. */
export async function applicationDocument() {
  known ??= await openapi();
  return known;
}

export function forgetDocument() {
  known = null;
}

/** Every action: name and operation, sorted by name. */
export function actionsOf(document) {
  const prefix = "/api/actions/";
  return Object.entries(document.paths)
    .filter(([path]) => path.startsWith(prefix))
    .map(([path, item]) => ({ name: path.slice(prefix.length), ...item.post }));
}
