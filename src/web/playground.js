// The playground: what happens when a person does something. What is said is kept in this page's
// memory and nowhere else.

import { boxesIn } from "./boxes.js";
import { chatRequest, extend, openAnswer, says } from "./conversation.js";
import { Composer } from "./composer.js";
import { byId, element } from "./elements.js";
import { syntheticFilm } from "./film.js";
import { ACCEPTED, forget } from "./images.js";
import { Server } from "./server.js";
import { requestFields, settings, systemPrompt, wantsJson } from "./settings.js";
import { snippets } from "./snippets.js";
import { theme } from "./theme.js";
import { AnswerView, copied, questionView, resultView } from "./turns.js";
import { Viewer } from "./viewer.js";

/// The name of the model that is part of the program.
const DEMO = "demo";

const server = new Server();
const viewer = new Viewer();
const composer = new Composer(viewer);

/// The conversation: turns, and beside each how it is shown.
let turns = [];
let views = [];
/// Stops the answer that is being written.
let running = null;
/// Forms that wait for a tool's result.
let offers = [];

// ---- The server and its models -----------------------------------------------------------------

async function loadModels() {
  const choice = byId("model");
  const before = choice.value;
  try {
    const models = await server.models();
    choice.replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    if (models.some(({ id }) => id === before)) choice.value = before;
    choice.disabled = false;
    byId("demo").hidden = choice.value !== DEMO;
    byId("state").textContent = `${models[0].max_model_len.toLocaleString("en")} tokens`;
    byId("state").classList.remove("wrong");
  } catch (fault) {
    choice.disabled = true;
    byId("state").textContent = fault.status === 503 ? "The model is still loading …" : fault.message;
    byId("state").classList.toggle("wrong", fault.status !== 503);
    if (fault.status === 401) askKey(fault.message);
    if (fault.status === 503) setTimeout(loadModels, (fault.retryAfter ?? 2) * 1000);
  }
}

function askKey(why) {
  if (why) byId("key-why").textContent = why;
  byId("key").value = "";
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}

function useKey() {
  server.setKey(byId("key").value);
  byId("key").value = "";
  byId("key-dialog").close();
  composer.tell("");
  composer.focus();
  loadModels();
}

// ---- The conversation --------------------------------------------------------------------------

function push(turn, view) {
  turns.push(turn);
  views.push(view);
  byId("turns").append(view.root ?? view);
  byId("welcome").hidden = true;
}

function pop() {
  turns.pop();
  const view = views.pop();
  (view.root ?? view).remove();
  byId("welcome").hidden = turns.length > 0;
}

function fieldsOrTell() {
  try {
    composer.tell("");
    return requestFields();
  } catch (problem) {
    composer.tell(problem.message);
    if (problem.field.closest("#settings")) openSettings();
    problem.field.focus();
    return null;
  }
}

async function send() {
  if (running) return;
  const turn = composer.turn();
  if (!turn) {
    composer.focus();
    return;
  }
  if (awaitsResults()) {
    composer.tell("The model waits for its tools: send their results first, or begin a new conversation.");
    return;
  }
  const fields = fieldsOrTell();
  if (!fields) return;
  push(turn, questionView(turn, (image) => viewer.show(image)));
  composer.clear();
  await answer(fields, 1);
}

function awaitsResults() {
  const last = turns.at(-1);
  return last?.role === "assistant" && last.calls.length > 0 && last.finish === "tool_calls";
}

/// Asks for the next turn. If nothing of it comes, the last `numAsked` turns are taken back, so that
/// they can be mended and sent again.
async function answer(fields, numAsked) {
  const request = chatRequest(byId("model").value, systemPrompt(), turns, fields, ({ dataUrl }) => dataUrl);
  const turn = openAnswer();
  const view = new AnswerView(turn, wantsJson(fields));
  for (const { settle } of offers) settle();
  offers = [];
  push(turn, view);
  const abort = new AbortController();
  running = abort;
  showRunning("Answering.");
  follow(true);
  const clock = { began: performance.now(), first: null, last: null };
  const film = turns.findLast((turn) => turn.images?.length > 0)?.images.at(-1);
  try {
    for await (const chunk of server.chat(request, abort.signal)) {
      if (extend(turn, chunk)) {
        clock.last = performance.now();
        clock.first ??= clock.last;
        view.grow();
        if (film && turn.text.includes("box_2d")) viewer.mark(film, boxesIn(turn.text));
        follow(false);
      }
    }
  } catch (fault) {
    turn.fault = abort.signal.aborted ? null : fault;
  }
  // A new conversation has begun meanwhile.
  if (running !== abort) return;
  running = null;
  if (!says(turn) && turn.finish === null) {
    takeBack(numAsked);
    if (turn.fault) composer.tell(turn.fault.message);
    if (turn.fault?.status === 401) askKey(turn.fault.message);
    showRunning("Stopped.");
    return;
  }
  view.end(clock, [{ name: "again", label: "Again", act: () => again(turn) }]);
  if (turn.finish === "tool_calls") offerResults(turn, view);
  showRunning(`Answered${turn.usage ? `: ${turn.usage.completion_tokens} tokens` : ""}.`);
  follow(false);
}

/// Undoes asking.
function takeBack(numAsked) {
  pop();
  for (let count = 0; count < numAsked; count += 1) {
    const turn = turns.at(-1);
    pop();
    if (turn.role === "user") composer.giveBack(turn);
  }
  const last = turns.at(-1);
  if (awaitsResults()) offerResults(last, views.at(-1));
  else composer.focus();
}

/// Writes the last answer anew.
function again(turn) {
  if (running || turns.at(-1) !== turn) {
    composer.tell(running ? "An answer is being written." : "Only the last answer can be written again.");
    return;
  }
  const fields = fieldsOrTell();
  if (!fields) return;
  pop();
  answer(fields, turns.at(-1).role === "user" ? 1 : 0);
}

function offerResults(turn, view) {
  view.settle();
  view.askResults((texts) => {
    const fields = fieldsOrTell();
    if (!fields || running) return;
    turn.calls.forEach((call, index) => {
      const result = { role: "tool", id: call.id, text: texts[index] };
      push(result, resultView(result, call.name));
    });
    answer(fields, turn.calls.length);
  });
  offers.push({ settle: () => view.settle() });
}

function startAnew() {
  running?.abort();
  running = null;
  showRunning("");
  turns.flatMap((turn) => turn.images ?? []).forEach(forget);
  turns = [];
  views = [];
  offers = [];
  byId("turns").replaceChildren();
  byId("welcome").hidden = false;
  viewer.clear();
  composer.discard();
  composer.focus();
}

function showRunning(said) {
  const [shown, hidden] = running ? [byId("stop-answer"), byId("send")] : [byId("send"), byId("stop-answer")];
  const hadFocus = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (hadFocus) shown.focus();
  byId("progress").textContent = said;
}

/// Keeps the end in sight, unless a person has scrolled away from it.
function follow(always) {
  const scroll = byId("scroll");
  const isNear = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 140;
  if (always || isNear) requestAnimationFrame(() => scroll.scrollTo({ top: scroll.scrollHeight }));
}

// ---- Settings and code -------------------------------------------------------------------------

function openSettings() {
  byId("settings").hidden = false;
  document.body.classList.add("has-settings");
  byId("settings-open").setAttribute("aria-expanded", "true");
}

function closeSettings() {
  byId("settings").hidden = true;
  document.body.classList.remove("has-settings");
  byId("settings-open").setAttribute("aria-expanded", "false");
  byId("settings-open").focus();
}

function showCode(language) {
  const fields = fieldsOrTell();
  if (!fields) return;
  const next = composer.turn();
  const hello = { role: "user", text: "Hello", images: [] };
  // What would be sent, or what was: without the answer that came.
  const sent = next ? [...turns, next] : turns.slice(0, turns.findLastIndex(({ role }) => role === "user") + 1);
  if (sent.length === 0) sent.push(hello);
  const make = (urlOf) => chatRequest(byId("model").value, systemPrompt(), sent, fields, urlOf);
  const address = new URL(".", location.href).href.replace(/\/$/, "");
  const texts = snippets(make, { address, needsKey: server.hasKey() });
  byId("code").textContent = texts[language];
  for (const tab of document.querySelectorAll("[data-language]")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.language === language));
  }
  const names = [...new Set(sent.flatMap((turn) => turn.images ?? []).map(({ name }) => name))];
  byId("code-hint").textContent = [
    names.length > 0 ? `Run it where ${names.join(", ")} ${names.length === 1 ? "is" : "are"}.` : "",
    server.hasKey() ? "Put your key into the environment variable MEDGEMMA_API_KEY." : "",
  ].join(" ").trim();
  if (!byId("code-dialog").open) byId("code-dialog").showModal();
}

// ---- What a person does ------------------------------------------------------------------------

function on(id, event, act) {
  byId(id).addEventListener(event, act);
}

on("send", "click", send);
on("stop-answer", "click", () => running?.abort());
on("new", "click", startAnew);
on("question", "keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  // A dialog closes itself.
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (running) running.abort();
  else if (!byId("settings").hidden) closeSettings();
});
on("starters", "click", ({ target }) => {
  const starter = target.closest("button");
  if (!starter) return;
  composer.suggest(starter.textContent);
  const missing = { image: 1, pair: 2 }[starter.dataset.needs] ?? 0;
  if (missing > composer.numImages()) {
    composer.tell(missing === 1 ? "Add the image that you ask about." : "Add two images, and press Side by side.");
  }
});

on("demo-film", "click", () => composer.add([syntheticFilm()]));

byId("files").accept = ACCEPTED;
for (const id of ["add", "drop"]) on(id, "click", () => byId("files").click());
on("files", "change", async ({ target }) => {
  const files = [...target.files];
  target.value = "";
  await composer.add(files);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length === 0) return;
  event.preventDefault();
  composer.add(files);
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  composer.add([...event.dataTransfer.files]);
});

on("settings-open", "click", () => (byId("settings").hidden ? openSettings() : closeSettings()));
on("settings-close", "click", closeSettings);

on("key-open", "click", () => askKey(""));
on("key-cancel", "click", () => byId("key-dialog").close());
on("key-use", "click", useKey);
on("key", "keydown", (event) => {
  if (event.key === "Enter") useKey();
});

on("code-open", "click", () => showCode("curl"));
on("code-close", "click", () => byId("code-dialog").close());
on("code-copy", "click", (event) => copied(event, byId("code").textContent));
for (const tab of document.querySelectorAll("[data-language]")) {
  tab.addEventListener("click", () => showCode(tab.dataset.language));
}

settings();
theme(byId("theme"));
loadModels();
