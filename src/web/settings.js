// How the model is to answer: what stands in the form beside the conversation, as fields of a
// request.

import { byId } from "./elements.js";

/// Numbers: the id of their field, which is also the request's, and whether it is whole.
const NUMBERS = [
  ["temperature", Number.isFinite],
  ["top_p", Number.isFinite],
  ["top_k", Number.isInteger],
  ["max_tokens", Number.isInteger],
  ["seed", Number.isSafeInteger],
];

const TOOLS = [
  {
    type: "function",
    function: {
      name: "find_prior_report",
      description: "The report of the patient's last examination of the same kind.",
      parameters: {
        type: "object",
        properties: { modality: { type: "string", enum: ["X-ray", "CT", "MR"] }, body_part: { type: "string" } },
        required: ["modality", "body_part"],
        additionalProperties: false,
      },
    },
  },
];

const SCHEMA = {
  type: "object",
  properties: {
    findings: {
      type: "array",
      maxItems: 4,
      items: {
        type: "object",
        properties: {
          finding: { type: "string", maxLength: 60 },
          side: { type: "string", enum: ["left", "right", "both", "neither"] },
          severity: { type: "string", enum: ["mild", "moderate", "severe"] },
        },
        required: ["finding", "side", "severity"],
        additionalProperties: false,
      },
    },
    impression: { type: "string", maxLength: 120 },
  },
  required: ["findings", "impression"],
  additionalProperties: false,
};

/// Makes the form live: examples on request, and fields that only matter with others.
export function settings() {
  const example = (button, field, value) =>
    byId(button).addEventListener("click", () => {
      byId(field).value = JSON.stringify(value, null, 2);
      byId(field).dispatchEvent(new Event("input", { bubbles: true }));
      byId(field).focus();
    });
  example("tools-example", "tools", TOOLS);
  example("schema-example", "schema", SCHEMA);
  const show = () => {
    byId("schema-part").hidden = byId("format").value !== "json_schema";
    byId("tool-choice-part").hidden = byId("tools").value.trim() === "";
    byId("settings-count").textContent = String(numChanged() || "");
  };
  byId("settings").addEventListener("input", show);
  byId("settings-reset").addEventListener("click", () => {
    for (const field of fieldsOf()) {
      if (field.tagName === "SELECT") field.selectedIndex = 0;
      else field.value = "";
    }
    show();
  });
  show();
}

/// What the system is told.
export function systemPrompt() {
  return byId("system").value;
}

/// The fields of a request. Throws a sentence about a setting that is none, with its `field`.
export function requestFields() {
  const fields = {};
  for (const [name, isFit] of NUMBERS) {
    const field = byId(name);
    if (field.value.trim() === "" && !field.validity.badInput) continue;
    const value = Number(field.value);
    const { min, max } = field;
    const isInside = (min === "" || value >= Number(min)) && (max === "" || value <= Number(max));
    if (field.value.trim() === "" || !isFit(value) || !isInside) {
      throw wrong(field, `${label(field)} ${range(field, isFit !== Number.isFinite)}.`);
    }
    fields[name] = value;
  }
  const stop = byId("stop").value.split("\n").filter((line) => line !== "");
  if (stop.length > 0) fields.stop = stop;
  const effort = byId("effort").value;
  if (effort) fields.reasoning_effort = effort;
  const format = byId("format").value;
  if (format === "json_object") fields.response_format = { type: format };
  if (format === "json_schema") {
    const schema = json("schema", "The schema");
    if (schema === undefined) throw wrong(byId("schema"), "The answer's format needs a JSON schema.");
    fields.response_format = { type: format, json_schema: { name: "answer", schema, strict: true } };
  }
  const tools = json("tools", "The list of tools");
  if (tools !== undefined) {
    if (!Array.isArray(tools)) throw wrong(byId("tools"), "The tools must be a JSON array.");
    fields.tools = tools;
    if (byId("tool-choice").value) fields.tool_choice = byId("tool-choice").value;
  }
  const more = json("more", "The object of other fields");
  if (more !== undefined) {
    if (more === null || typeof more !== "object" || Array.isArray(more)) {
      throw wrong(byId("more"), "The other fields must be a JSON object.");
    }
    Object.assign(fields, more);
  }
  return fields;
}

/// Whether answers are asked for as JSON.
export function wantsJson(fields) {
  return fields.response_format !== undefined && fields.response_format.type !== "text";
}

function fieldsOf() {
  return [...byId("settings").querySelectorAll("input, select, textarea")];
}

function numChanged() {
  return fieldsOf().filter((field) => field.value.trim() !== "" && !field.closest("[hidden]:not(#settings)")).length;
}

function json(id, what) {
  const field = byId(id);
  if (field.value.trim() === "") return undefined;
  try {
    return JSON.parse(field.value);
  } catch (error) {
    throw wrong(field, `${what} is not JSON: ${error.message}.`);
  }
}

function wrong(field, sentence) {
  return Object.assign(new Error(sentence), { field });
}

function label(field) {
  return field.labels[0].firstChild.textContent.trim();
}

function range({ min, max }, isWhole) {
  const kind = isWhole ? "a whole number" : "a number";
  if (min !== "" && max !== "") return `must be ${kind} of ${min} to ${max}`;
  return min === "" ? `must be ${kind}` : `must be ${kind} of at least ${min}`;
}
