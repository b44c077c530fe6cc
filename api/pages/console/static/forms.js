// A form made from the JSON Schema of an action's params.

import { element, show, written } from "./elements.js";

const NUMBERS = { integer: "whole number", number: "number" };

/** The schema that a `$ref` into the document leads to. */
export function resolved(schema, document) {
  if (!schema?.$ref) return schema ?? {};
  const found = schema.$ref.slice(2).split("/").reduce((part, name) => part?.[name], document);
  return { ...resolved(found, document), ...schema, $ref: undefined };
}

/** A field's schema without the null that an optional one also takes. */
function plain(schema, document) {
  const whole = resolved(schema, document);
  const kinds = (whole.anyOf ?? []).map((kind) => resolved(kind, document));
  const others = kinds.filter((kind) => kind.type !== "null");
  if (others.length === kinds.length || others.length !== 1) return whole;
  return { ...whole, ...others[0], description: whole.description ?? others[0].description };
}

/** An input for one field: its element, what kind of value it takes, and how to read it. */
function inputFor(schema, id, required) {
  const given = schema.default;
  if (schema.enum && schema.enum.every((value) => typeof value === "string")) {
    const options = schema.enum.map((value) =>
      element("option", { value, selected: value === given }, value));
    if (!required) options.unshift(element("option", { value: "" }, "(not set)"));
    const input = element("select", { id, required }, ...options);
    return { input, kind: "one of a list", read: () => input.value || undefined };
  }
  if (schema.type === "boolean") {
    const words = required ? ["true", "false"] : ["", "true", "false"];
    const options = words.map((value) =>
      element("option", { value, selected: value === String(given) }, value || "(not set)"));
    const input = element("select", { id, required }, ...options);
    return { input, kind: "true or false",
      read: () => (input.value ? input.value === "true" : undefined) };
  }
  if (schema.type in NUMBERS) {
    const input = element("input", { id, required, type: "number", value: given,
      min: schema.minimum, max: schema.maximum, step: schema.type === "integer" ? 1 : "any" });
    return { input, kind: NUMBERS[schema.type] + limits(schema),
      read: () => (input.value === "" ? undefined : Number(input.value)) };
  }
  if (schema.type === "string") {
    const input = element("input", { id, required, type: "text", value: given,
      maxlength: schema.maxLength, autocomplete: "off", spellcheck: "false",
      placeholder: schema.format });
    return { input, kind: schema.format ? `text (${schema.format})` : "text",
      read: () => input.value || (required ? "" : undefined) };
  }
  return jsonInput(id, given === undefined ? "" : JSON.stringify(given, null, 2), required);
}

function limits({ minimum, maximum }) {
  if (minimum === undefined && maximum === undefined) return "";
  if (maximum === undefined) return `, at least ${minimum}`;
  return minimum === undefined ? `, at most ${maximum}` : `, ${minimum} to ${maximum}`;
}

/** A text field for any JSON. */
export function jsonInput(id, text, required) {
  const input = element("textarea", { id, required, rows: 4, spellcheck: "false" }, text);
  const read = () => {
    if (input.value.trim() === "") return undefined;
    try {
      return JSON.parse(input.value);
    } catch (error) {
      throw new FieldError(id, `not JSON: ${error.message}`);
    }
  };
  return { input, kind: "JSON", read };
}

/** A field holds what cannot be sent. */
class FieldError extends Error {
  constructor(id, message) {
    super(message);
    this.id = id;
  }
}

/** A field with its label, hint and message: `row` to show, `tell(text)` for what is wrong. */
export function field(id, title, made, schema, required) {
  const message = element("p", { id: `${id}-error`, class: "error" });
  made.input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  const row = element("div", { class: "field" },
    element("label", { for: id }, title, " ",
      element("span", { class: "kind" }, required ? made.kind : `${made.kind}, optional`)),
    made.input,
    element("p", { id: `${id}-hint`, class: "hint" }, ...written(schema.description)),
    message);
  const tell = (text) => {
    show(message, text ?? "");
    if (text) made.input.setAttribute("aria-invalid", "true");
    else made.input.removeAttribute("aria-invalid");
  };
  return { id, row, tell, input: made.input, read: made.read };
}

/**
 * The fields of an object schema: `elements` to show, `read()` for the text of a JSON object
 * (null where a field is wrong, which is then told beside it), `tell(issues)` for what the
 * server found wrong. A schema without fields is one text field for raw JSON.
 */
export function paramsForm(schema, document) {
  const whole = resolved(schema, document);
  const names = Object.keys(whole.properties ?? {});
  const open = names.length === 0;
  const fields = open
    ? { "": field("params", "Params", jsonInput("params", "{}", false), {
      description: "A JSON object. This action does not say which fields it takes." }, false) }
    : Object.fromEntries(names.map((name) => [name, namedField(name, whole, document)]));
  const clear = () => Object.values(fields).forEach((made) => made.tell(null));
  return {
    elements: Object.values(fields).map((made) => made.row),
    read() {
      clear();
      return open ? readWhole(fields[""]) : readNamed(fields);
    },
    tell(issues) {
      const known = issues.filter((issue) => fields[issue.path.split(".")[0]]);
      for (const issue of known) fields[issue.path.split(".")[0]].tell(issue.message);
      if (known.length) fields[known[0].path.split(".")[0]].input.focus();
      return issues.filter((issue) => !known.includes(issue));
    },
  };
}

function namedField(name, whole, document) {
  const required = (whole.required ?? []).includes(name);
  const schema = plain(whole.properties[name], document);
  const id = `param-${name}`;
  return field(id, name, inputFor(schema, id, required), schema, required);
}

/** The text itself, not what it parses to: a number of any size stays as it was written. */
function readWhole(only) {
  const text = only.input.value.trim() || "{}";
  try {
    const value = only.read() ?? {};
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new FieldError(only.id, "must be a JSON object, such as {}");
    }
    return text;
  } catch (error) {
    only.tell(error.message);
    only.input.focus();
    return null;
  }
}

function readNamed(fields) {
  const params = {};
  for (const [name, made] of Object.entries(fields)) {
    try {
      const value = made.read();
      if (value !== undefined) params[name] = value;
    } catch (error) {
      made.tell(error.message);
      made.input.focus();
      return null;
    }
  }
  return JSON.stringify(params);
}
