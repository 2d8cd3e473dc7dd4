// The turns of a conversation as a person sees them.

import { copyText, element, icon } from "./elements.js";
import { says } from "./conversation.js";
import { markdown } from "./markdown.js";

/// A question with its images.
export function questionView(turn, show) {
  const images = turn.images.map((image) =>
    element(
      "button",
      { type: "button", class: "sent", title: `Show ${image.name}`, onclick: () => show(image) },
      element("img", { src: image.shownUrl, alt: image.name }),
      image.label ? element("span", {}, image.label) : null,
    ),
  );
  return element(
    "li",
    { class: "turn question" },
    images.length > 0 ? element("div", { class: "shown" }, ...images) : null,
    turn.text ? element("p", {}, turn.text) : null,
  );
}

/// What a tool answered.
export function resultView(turn, name) {
  return element("li", { class: "turn result" }, element("span", {}, `${name} answered`), element("pre", {}, turn.text));
}

/// An answer, drawn anew as it grows.
export class AnswerView {
  #answer;
  #isJson;
  #thought = element("details", { class: "thought", hidden: true }, element("summary"), element("div", { class: "prose" }));
  #body = element("div", { class: "prose said" });
  #calls = element("div", { class: "calls" });
  #fault = element("p", { class: "notice", role: "alert", hidden: true });
  #foot = element("footer", { hidden: true });
  #drawn = false;

  constructor(answer, isJson) {
    this.#answer = answer;
    this.#isJson = isJson;
    this.root = element(
      "li",
      { class: "turn answer running" },
      this.#thought,
      this.#body,
      this.#calls,
      this.#fault,
      this.#foot,
    );
  }

  /// Soon, and once for all that came until then.
  grow() {
    if (this.#drawn) return;
    this.#drawn = true;
    requestAnimationFrame(() => {
      this.#drawn = false;
      if (this.root.classList.contains("running")) this.#draw();
    });
  }

  /// It will not grow any more. `clock` says how long it took, `actions` are offered below.
  end(clock, actions) {
    this.root.classList.remove("running");
    this.#draw();
    const { fault, finish } = this.#answer;
    this.#fault.hidden = fault === null;
    this.#fault.textContent = fault?.message ?? "";
    const buttons = [
      says(this.#answer) && this.#answer.text ? button("copy", "Copy", (event) => copied(event, this.#answer.text)) : null,
      ...actions.map(({ name, label, act }) => button(name, label, act)),
    ];
    this.#foot.hidden = false;
    this.#foot.replaceChildren(
      element("ul", { class: "figures" }, ...figures(this.#answer, clock).map(([figure, title]) => element("li", { title }, figure))),
      element("span", { class: "gap" }),
      ...buttons.filter(Boolean),
    );
    if (finish === "length") {
      this.#fault.hidden = false;
      this.#fault.textContent = "The answer was cut: it reached its most tokens.";
      this.#fault.classList.add("mild");
    }
    if (finish === null && fault === null) {
      this.#fault.hidden = false;
      this.#fault.textContent = "Stopped.";
      this.#fault.classList.add("mild");
    }
  }

  /// Lets a person say what the called tools answer; `send` gets the texts.
  askResults(send) {
    const fields = this.#answer.calls.map((call, index) => {
      const field = element("textarea", { rows: 2, class: "code", placeholder: "What the tool answers, such as JSON" });
      this.#calls.children[index].append(element("label", { class: "wide" }, `Result of ${call.name}`, field));
      return field;
    });
    const act = element(
      "button",
      {
        type: "button",
        class: "solid",
        onclick: () => send(fields.map((field) => field.value)),
      },
      fields.length === 1 ? "Send the result" : "Send the results",
    );
    this.#calls.append(act);
    fields[0]?.focus();
  }

  /// Takes the form away.
  settle() {
    for (const part of this.#calls.querySelectorAll("label, button")) part.remove();
  }

  #draw() {
    const { thought, text, calls } = this.#answer;
    this.#thought.hidden = thought === "";
    if (thought !== "") {
      const [summary, body] = this.#thought.children;
      const isOpen = text === "" && calls.length === 0 && this.root.classList.contains("running");
      const tokens = this.#answer.usage?.completion_tokens_details?.reasoning_tokens;
      summary.textContent = isOpen ? "Thinking …" : `Thought${tokens ? ` (${tokens} tokens)` : ""}`;
      body.replaceChildren(...markdown(thought));
    }
    this.#body.replaceChildren(...(this.#isJson ? [element("pre", { class: "json" }, pretty(text))] : markdown(text)));
    if (calls.length > 0 && !this.#calls.querySelector("label")) {
      this.#calls.replaceChildren(...calls.map(callView));
    }
  }
}

function callView(call) {
  return element(
    "div",
    { class: "call" },
    element("span", {}, "Calls ", element("b", {}, call.name)),
    element("pre", { class: "json" }, pretty(call.arguments)),
  );
}

/// JSON in lines; what is no JSON, or not yet, as it is.
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function figures({ usage }, { first, last, began }) {
  const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
  const told = [];
  if (first !== null) told.push([`${seconds(first - began)} to first token`, "From sending to the first token"]);
  if (usage && first !== null && last > first && usage.completion_tokens > 1) {
    const rate = ((usage.completion_tokens - 1) * 1000) / (last - first);
    told.push([`${rate.toFixed(rate < 99.5 ? 1 : 0)} tokens/s`, "From the first token to the last"]);
  }
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    const thought = usage.completion_tokens_details?.reasoning_tokens ?? 0;
    told.push([
      `${usage.prompt_tokens} in, ${usage.completion_tokens} out`,
      `Tokens of the prompt, ${cached} of them cached, and of the answer, ${thought} of them thought`,
    ]);
  }
  if (last !== null) told.push([seconds(last - began), "From sending to the last token"]);
  return told;
}

function button(name, label, act) {
  return element("button", { type: "button", class: "quiet", title: label, onclick: act }, icon(name), element("span", { class: "visually-hidden" }, label));
}

/// Copies, and says so on the button.
export async function copied(event, text) {
  const label = event.currentTarget.querySelector("span");
  const { textContent: before, className } = label;
  label.className = "";
  try {
    await copyText(text);
    label.textContent = "Copied";
  } catch (error) {
    label.textContent = error.message;
  }
  setTimeout(() => {
    label.textContent = before;
    label.className = className;
  }, 1600);
}
