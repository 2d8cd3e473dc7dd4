// The pages in a real browser, used as people use them.
//
//     node browser.mjs CHROMIUM ADDRESS KEY IMAGE PYTHON
//
// ADDRESS is of a server that thinks on request; IMAGE is a data URI; PYTHON has the openai
// package. What the model says does not matter: where words matter, they are asked for.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { ask, closePage, drop, launch, more, openPage, paste, unlock } from "./page.mjs";

const [chromium, address, key, imageUrl, python] = process.argv.slice(2);
const image = { name: "a film's copy.png", base64: imageUrl.split(",")[1] };
const REFUSED = /console: Failed to load resource/;
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
async function tokens(text) {
  const body = JSON.stringify({ prompt: text, add_special_tokens: false });
  return (await (await fetch(`${address}/tokenize`, { method: "POST", headers, body })).json()).tokens;
}

async function metric(name) {
  const text = await (await fetch(`${address}/metrics`, { headers })).text();
  return Number(text.match(new RegExp(`^${name}(?:\\{.*\\})? (.*)$`, "m"))[1]);
}

async function playground(browser, options) {
  const opened = await openPage(browser, address, "/", options);
  await unlock(opened.page, key);
  return opened;
}

/// Makes the answer be this text.
const says = (text) => ({ structured_outputs: { choice: [text] }, reasoning_effort: "none" });
const notice = (page) => page.locator("#notice").textContent();
const fields = (request) => JSON.parse(request.postData());
const isChat = (request) => request.url().endsWith("/v1/chat/completions");

const checks = {
  async "asks for the key and keeps it nowhere"(browser) {
    const opened = await openPage(browser, address, "/");
    const { page } = opened;
    await page.waitForSelector("#key-dialog[open]");
    assert.equal(await page.locator("#key-why").textContent(), "This server needs an API key.");
    await page.fill("#key", "not-the-key");
    await page.click("#key-use");
    await page.waitForFunction(() => document.querySelector("#key-why").textContent.includes("does not accept"));
    await unlock(page, key);
    assert.equal(await page.inputValue("#model"), "noise");
    assert.match(await page.locator("#state").textContent(), /^[\d,]+ tokens$/);
    assert.equal(await page.inputValue("#key"), "");
    await page.reload();
    await page.waitForSelector("#key-dialog[open]");
    await closePage(opened, [REFUSED]);
  },

  async "says that the model loads, and goes on when it has"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    let asked = 0;
    await page.route("**/v1/models", (route) => {
      asked += 1;
      if (asked > 1) return route.continue();
      const json = { error: { message: "The model is still loading.", code: "loading" } };
      return route.fulfill({ status: 503, json, headers: { "Retry-After": "1" } });
    });
    await page.click("#key-open");
    await page.fill("#key", key);
    await page.click("#key-use");
    await page.getByText("The model is still loading …").waitFor();
    await page.waitForFunction(() => !document.querySelector("#model").disabled);
    assert.equal(asked, 2);
    await closePage(opened, [REFUSED]);
  },

  async "has a film for those who try the demo"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await page.waitForFunction(() => !document.querySelector("#model").disabled);
    assert.ok(await page.locator("#demo").isHidden());
    await page.route("**/v1/models", (route) => {
      const json = { object: "list", data: [{ id: "demo", object: "model", max_model_len: 8192 }] };
      return route.fulfill({ json });
    });
    await page.click("#key-open");
    await page.fill("#key", key);
    await page.click("#key-use");
    await page.click("#demo-film");
    await page.waitForFunction(() => document.querySelector(".frame img")?.naturalWidth > 100);
    assert.equal(await page.locator("#pending li").count(), 1);
    assert.equal(await page.locator("#notice").isVisible(), false);
    await closePage(opened, [REFUSED]);
  },

  async "takes a dropped image and streams the answer"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await drop(page, image);
    await page.waitForSelector("#pending li");
    await page.waitForSelector(".frame img");
    await page.evaluate(() => {
      window.lengths = new Set();
      const look = () => window.lengths.add(document.querySelector(".answer .said")?.textContent.length ?? 0);
      new MutationObserver(look).observe(document.querySelector("#turns"), { childList: true, subtree: true, characterData: true });
    });
    const [word] = await tokens("heart");
    await more(page, { max_tokens: 1500, ignore_eos: true, temperature: 1, logit_bias: { [word]: 100 } });
    const sent = page.waitForRequest(isChat);
    const answer = await ask(page, "What do you see?");
    const body = fields(await sent);
    const content = body.messages.at(-1).content;
    assert.deepEqual(content[0], { type: "text", text: "What do you see?" });
    assert.equal(content[1].image_url.url, imageUrl);
    assert.ok((await page.evaluate(() => window.lengths.size)) > 3, "the answer came at once");
    const figures = await answer.locator(".figures li").allTextContents();
    assert.match(figures[0], /^\d+\.\d+ s to first token$/);
    assert.match(figures[1], /^\d+(\.\d)? tokens\/s$/);
    const [, prompt, out] = figures[2].match(/^(\d+) in, (\d+) out$/);
    assert.ok(Number(prompt) > 256 && Number(out) === 1500, figures[2]);
    assert.equal(await page.locator("#pending li").count(), 0);
    assert.equal(await page.locator(".question .sent img").count(), 1);
    assert.ok(await page.locator("#progress").textContent().then((text) => text.includes("1500 tokens")));
    await closePage(opened, [REFUSED]);
  },

  async "folds the thought"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    const [begin] = await tokens("<unused94>");
    const [word] = await tokens("heart");
    await more(page, {
      max_tokens: 48,
      temperature: 0,
      frequency_penalty: 2,
      logit_bias: { [begin]: 100, [word]: 90 },
      ignore_eos: true,
      thinking_token_budget: 16,
    });
    await page.selectOption("#effort", "low");
    const sent = page.waitForRequest(isChat);
    const answer = await ask(page, "Think.");
    assert.equal(fields(await sent).reasoning_effort, "low");
    const thought = answer.locator(".thought");
    assert.match(await thought.locator("summary").textContent(), /^Thought \(\d+ tokens\)$/);
    assert.equal(await thought.locator(".prose").isVisible(), false);
    await thought.locator("summary").focus();
    await page.keyboard.press("Enter");
    assert.ok(await thought.locator(".prose").isVisible());
    assert.ok((await thought.locator(".prose").innerText()).trim() !== "");
    await closePage(opened, [REFUSED]);
  },

  async "stops with Escape, and the server stops too"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    const [word] = await tokens("heart");
    // The page gets the beginning alone, and the rest is several times what the system and the
    // browser keep for somebody who does not read: the answer cannot end before it is stopped.
    await page.evaluate(() => {
      const fetched = window.fetch;
      window.fetch = async (path, options) => {
        const answer = await fetched(path, options);
        if (!String(path).endsWith("/chat/completions")) return answer;
        const reader = answer.body.getReader();
        let left = 20;
        const beginning = new ReadableStream({
          start(controller) {
            options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
          },
          async pull(controller) {
            if (left === 0) return new Promise(() => {});
            left -= 1;
            const { value, done } = await reader.read();
            return done ? controller.close() : controller.enqueue(value);
          },
        });
        return new Response(beginning, { status: answer.status, headers: answer.headers });
      };
    });
    const much = { max_tokens: 7000, n: 4, logprobs: true, top_logprobs: 20 };
    await more(page, { ...much, ignore_eos: true, temperature: 1, logit_bias: { [word]: 100 } });
    await page.fill("#question", "Go on and on.");
    await page.press("#question", "Enter");
    await page.waitForFunction(() => (document.querySelector(".answer .said")?.textContent.length ?? 0) > 20);
    await page.keyboard.press("Escape");
    await page.waitForSelector(".answer > .notice");
    assert.equal(await page.locator(".answer > .notice").textContent(), "Stopped.");
    assert.ok(await page.locator("#send").isVisible());
    for (const [name, there] of [
      ["vllm:num_requests_running", (number) => number === 0],
      ["medgemma:requests_cancelled_total", (number) => number >= 1],
    ]) {
      for (let wait = 0; !there(await metric(name)); wait += 1) {
        assert.ok(wait < 300, `the server still computes: ${name}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    await closePage(opened, [REFUSED]);
  },

  async "says what is wrong, and gives the question back"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    const fail = async (expected) => {
      await page.fill("#question", "Is it normal?");
      await page.press("#question", "Enter");
      await page.waitForSelector("#notice:not([hidden])");
      assert.match(await notice(page), expected);
      assert.equal(await page.inputValue("#question"), "Is it normal?");
      assert.equal(await page.locator(".turn").count(), 0);
    };
    await more(page, { temperature: 9 });
    await fail(/^'temperature' must be 0–2, got 9\.$/);
    await page.fill("#more", "{not json");
    await fail(/^The object of other fields is not JSON: /);
    await page.fill("#more", "");
    await page.fill("#temperature", "3");
    await fail(/^Temperature must be a number of 0 to 2\.$/);
    await page.fill("#temperature", "");

    const answered = (status, json, headers) => page.route("**/v1/chat/completions", (route) => route.fulfill({ status, json, headers }), { times: 1 });
    const full = { error: { message: "The queue is full: 3 requests wait.", code: "rate_limit_exceeded" } };
    await answered(429, full, { "Retry-After": "7" });
    await fail(/^The queue is full: 3 requests wait\. Try again in 7 s\.$/);
    await page.route("**/v1/chat/completions", (route) => route.fulfill({ status: 502, body: "<h1>Bad gateway</h1>" }), { times: 1 });
    await fail(/^The server answered with status 502 and no explanation\.$/);
    await page.route("**/v1/chat/completions", (route) => route.abort(), { times: 1 });
    await fail(/^The server at 127\.0\.0\.1:\d+ cannot be reached\. Is it still running\?$/);

    const chunk = { choices: [{ index: 0, delta: { content: "The heart" }, finish_reason: null }] };
    const cut = { contentType: "text/event-stream", body: `data: ${JSON.stringify(chunk)}\n\n` };
    await page.route("**/v1/chat/completions", (route) => route.fulfill(cut), { times: 1 });
    const answer = await ask(page, "Is it normal?");
    assert.match(await answer.locator(".notice").textContent(), /ended before the answer did/);
    assert.match(await answer.locator(".said").textContent(), /The heart/);

    const failed = { error: { message: "A step failed", code: "step_failed" } };
    const told = { contentType: "text/event-stream", body: `data: ${JSON.stringify(chunk)}\n\ndata: ${JSON.stringify(failed)}\n\n` };
    await page.route("**/v1/chat/completions", (route) => route.fulfill(told), { times: 1 });
    assert.equal(await (await ask(page, "Again?")).locator(".notice").textContent(), "A step failed.");
    await closePage(opened, [REFUSED]);
  },

  async "refuses files that the server does not take"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    const dicom = Buffer.concat([Buffer.alloc(128), Buffer.from("DICM"), Buffer.alloc(60)]).toString("base64");
    await drop(page, { name: "chest", base64: dicom }, { name: "notes.txt", base64: btoa("no image") }, image);
    await page.waitForSelector("#pending li");
    assert.match(await notice(page), /^chest is a DICOM file\. This page cannot show it yet:.*notes\.txt is not an image/);
    assert.equal(await page.locator("#pending li").count(), 1);
    await page.click("#pending button");
    assert.equal(await page.locator("#pending li").count(), 0);
    assert.equal(await page.locator(".frame").count(), 0);
    await closePage(opened, [REFUSED]);
  },

  async "compares a prior with the current"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await drop(page, { ...image, name: "old.png" });
    await page.waitForSelector("#pending li");
    await paste(page, { ...image, name: "new.png" });
    await page.waitForFunction(() => document.querySelectorAll("#pending li").length === 2);
    assert.equal(await page.locator("#stage figure").count(), 1);
    await page.click("#side-by-side");
    const captions = () => page.locator("figcaption").evaluateAll((all) => all.map((one) => [...one.children].slice(0, 2).map((part) => part.textContent)));
    assert.deepEqual(await captions(), [["Prior", "old.png"], ["Current", "new.png"]]);
    await page.click("#swap");
    assert.deepEqual(await captions(), [["Prior", "new.png"], ["Current", "old.png"]]);
    await page.click("#zoom-in");
    const transforms = await page.locator(".frame").evaluateAll((all) => all.map((one) => one.style.transform));
    assert.ok(transforms[0].includes("scale(1.25)") && transforms[0] === transforms[1], String(transforms));
    await more(page, { max_tokens: 4 });
    const sent = page.waitForRequest(isChat);
    await ask(page, "What has changed?");
    const content = fields(await sent).messages.at(-1).content;
    assert.deepEqual(content.map((part) => part.text ?? part.type), ["What has changed?", "Prior:", "image_url", "Current:", "image_url"]);
    await closePage(opened, [REFUSED]);
  },

  async "draws the boxes of an answer"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await drop(page, image);
    await page.waitForSelector("#pending li");
    await more(page, says('[{"box_2d": [100, 200, 500, 600], "label": "opacity"}]'));
    await ask(page, "Where?");
    const [box, frame] = await Promise.all([".boxes rect", ".frame"].map((at) => page.locator(at).boundingBox()));
    const part = [(box.x - frame.x) / frame.width, (box.y - frame.y) / frame.height, box.width / frame.width, box.height / frame.height];
    for (const [index, expected] of [0.2, 0.1, 0.4, 0.4].entries()) {
      assert.ok(Math.abs(part[index] - expected) < 0.02, `the box is at ${part}`);
    }
    assert.equal(await page.locator(".box-label").textContent(), "opacity");
    await closePage(opened, [REFUSED]);
  },

  async "shows markup as text"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    const nasty = '<img src=x onerror="window.pwned = 1"> **loud** [a](javascript:alert(1))';
    await more(page, says(nasty));
    const answer = await ask(page, "<b>Say it.</b>");
    assert.equal((await answer.locator(".said").innerText()).trim(), nasty.replaceAll("**", ""));
    assert.equal(await answer.locator("strong").textContent(), "loud");
    assert.equal(await page.locator(".turn a, .turn b, .answer img").count(), 0);
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    await closePage(opened, [REFUSED]);
  },

  async "keeps answers to JSON"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await page.click("#settings-open");
    assert.equal(await page.locator("#schema").isVisible(), false);
    // A thought, which noise may never end, is not kept to the schema.
    await page.selectOption("#effort", "none");
    await page.selectOption("#format", "json_schema");
    await page.fill("#schema", JSON.stringify({ type: "object", properties: { normal: { type: "boolean" } }, required: ["normal"], additionalProperties: false }));
    const answer = await ask(page, "Is it normal?");
    const read = JSON.parse(await answer.locator("pre.json").textContent());
    assert.deepEqual(Object.keys(read), ["normal"]);
    await page.selectOption("#format", "json_object");
    await page.fill("#max_tokens", "64");
    const sent = page.waitForRequest(isChat);
    await ask(page, "And now?");
    assert.deepEqual(fields(await sent).response_format, { type: "json_object" });
    await closePage(opened, [REFUSED]);
  },

  async "shows calls of tools and sends their results"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await page.click("#settings-open");
    await page.click("#tools-example");
    const [tool] = JSON.parse(await page.inputValue("#tools"));
    // Noise may never end a string.
    tool.function.parameters.properties.body_part.enum = ["chest", "knee"];
    await page.fill("#tools", JSON.stringify([tool]));
    await page.selectOption("#tool-choice", "required");
    await page.selectOption("#effort", "none");
    await more(page, { parallel_tool_calls: false });
    const answer = await ask(page, "Compare.");
    assert.equal(await answer.locator(".call b").textContent(), "find_prior_report");
    assert.ok(JSON.parse(await answer.locator(".call pre").textContent()).modality);
    await page.fill("#question", "What now?");
    await page.press("#question", "Enter");
    assert.match(await notice(page), /^The model waits for its tools/);
    await page.fill("#question", "");
    await page.fill("#more", JSON.stringify({ max_tokens: 8, tool_choice: "none" }));
    await page.fill(".call textarea", '{"report": "Clear lungs."}');
    const sent = page.waitForRequest(isChat);
    await page.click(".calls > button");
    const messages = fields(await sent).messages;
    await page.waitForFunction(() => document.querySelectorAll(".answer").length === 2 && !document.querySelector(".running"));
    assert.deepEqual(messages.map(({ role }) => role), ["user", "assistant", "tool"]);
    assert.equal(messages[2].tool_call_id, messages[1].tool_calls[0].id);
    assert.equal(messages[2].content, '{"report": "Clear lungs."}');
    assert.equal(await page.locator(".call textarea").count(), 0);
    await closePage(opened, [REFUSED]);
  },

  async "writes the request as code that runs"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await drop(page, image);
    await page.waitForSelector("#pending li");
    await page.click("#settings-open");
    for (const [id, value] of [["temperature", "0"], ["max_tokens", "12"], ["top_k", "40"], ["seed", "7"], ["stop", "$HOME `x`\n\\end"]]) {
      await page.fill(`#${id}`, value);
    }
    const system = "Say \"$5\" and 'it' — not `this` or \\n.";
    await page.fill("#system", system);
    const sent = page.waitForRequest(isChat);
    const answer = await ask(page, "What do you see?\nTwo lines.");
    const body = fields(await sent);
    assert.equal(body.messages[0].content, system);
    const expected = await answer.locator(".said").textContent();
    await page.click("#code-open");
    const folder = mkdtempSync(path.join(tmpdir(), "medgemma-code-"));
    const here = path.dirname(fileURLToPath(import.meta.url));
    const env = { ...process.env, MEDGEMMA_API_KEY: key };
    const run = (command, ...words) => execFileSync(command, words, { cwd: folder, env, encoding: "utf8", stdio: "pipe", timeout: 60_000 });
    const code = async (language) => {
      await page.click(`[data-language="${language}"]`);
      const text = await page.locator("#code").textContent();
      assert.ok(!text.includes(key), "the key stands in the code");
      return text;
    };
    const plain = (text) => text.replace(/[\s*_`#]/g, "");
    try {
      writeFileSync(path.join(folder, image.name), Buffer.from(image.base64, "base64"));
      for (const shell of ["bash", "sh"]) {
        const events = run(shell, "-c", await code("curl")).split("\n").filter((line) => line.startsWith("data: {"));
        const text = events.map((line) => JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "").join("");
        assert.equal(plain(text), plain(expected), shell);
      }
      assert.equal(plain(run(python, "-c", await code("python"))), plain(expected));
      // Where the package is.
      const script = path.join(here, "node_modules", `.code-${process.pid}.mjs`);
      writeFileSync(script, await code("javascript"));
      try {
        assert.equal(plain(run("node", script)), plain(expected));
      } finally {
        rmSync(script);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
    await page.click("#code-copy");
    await page.getByText("Copied").waitFor();
    await closePage(opened, [REFUSED]);
  },

  async "reads streams and boxes however they come"(browser) {
    const opened = await openPage(browser, address, "/docs");
    const read = await opened.page.evaluate(async () => {
      const { events } = await import("/assets/events.js");
      const { boxesIn } = await import("/assets/boxes.js");
      const text = 'data: {"é": "😀"}\r\n\r\n: a comment\n\nevent: x\ndata: one\ndata:two\n\ndata: [DONE]\n\ndata: cut';
      const bytes = new TextEncoder().encode(text);
      const streams = [];
      for (const size of [1, 3, bytes.length]) {
        const stream = new ReadableStream({
          start(controller) {
            for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
            controller.close();
          },
        });
        const data = [];
        for await (const event of events(stream)) data.push(event);
        streams.push(data);
      }
      return { streams, boxes: boxesIn(`Here: [{"box_2d": [900, 0, 100, 2000], "label": "a"},
        {"label": "flat", "box_2d": [5, 5, 5, 9]}, {"box_2d": [1, 2, 3]}, {"box_2d": ["1", 2, 3, 4]}, {"box_2d": [0, 0, 500, 500]}, {"box_2d": [1, 2`) };
    });
    for (const data of read.streams) assert.deepEqual(data, ['{"é": "😀"}', "one\ntwo", "[DONE]"]);
    assert.deepEqual(read.boxes, [
      { top: 0.1, left: 0, bottom: 0.9, right: 1, label: "a" },
      { top: 0, left: 0, bottom: 0.5, right: 0.5, label: "" },
    ]);
    await closePage(opened);
  },

  async "is used with the keyboard alone"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, a, input, select, textarea")]
        .filter((control) => !(control.getAttribute("aria-label") || control.title || control.labels?.[0]?.textContent.trim() || control.textContent.trim()))
        .map((control) => control.outerHTML),
    );
    assert.deepEqual(nameless, []);
    await page.click("#settings-open");
    await page.evaluate(() => document.activeElement.blur());
    const seen = new Set();
    for (let step = 0; step < 60; step += 1) {
      await page.keyboard.press("Tab");
      const { id, outline } = await page.evaluate(() => {
        const focused = document.activeElement;
        const own = getComputedStyle(focused);
        // The question's frame is drawn around all of its box.
        const frame = focused.id === "question" ? getComputedStyle(document.querySelector("#composer")).borderColor : "";
        // Between the last control and the first, the focus is the browser's own.
        if (focused === document.body) return { id: "", outline: true };
        return { id: focused.id || focused.textContent.trim(), outline: own.outlineStyle !== "none" || frame !== "" };
      });
      if (id) assert.ok(outline, `${id} does not show that it has the focus`);
      seen.add(id);
    }
    for (const id of ["model", "new", "key-open", "theme", "drop", "question", "add", "effort", "settings-open", "code-open", "send", "system", "temperature", "tools", "more", "settings-close"]) {
      assert.ok(seen.has(id), `the keyboard does not reach #${id}`);
    }
    await page.keyboard.press("Escape");
    assert.ok(await page.locator("#settings").isHidden());
    await page.focus("#question");
    await page.keyboard.type("One");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("two");
    const sent = page.waitForRequest(isChat);
    await page.keyboard.press("Enter");
    assert.equal(fields(await sent).messages[0].content, "One\ntwo");
    await page.waitForSelector(".answer");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector(".running"));
    await closePage(opened, [REFUSED]);
  },

  async "fits a phone"(browser) {
    for (const width of [390, 320]) {
      const opened = await playground(browser, { ...PHONE, viewport: { width, height: 844 } });
      const { page } = opened;
      await page.setInputFiles("#files", { name: "film.png", mimeType: "image/png", buffer: Buffer.from(image.base64, "base64") });
      await page.waitForSelector("#pending li");
      await more(page, { max_tokens: 60, ignore_eos: true });
      await page.click("#settings-close");
      await ask(page, "What do you see?");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} of ${width} pixels`);
      for (const id of ["#send", "#add", "#settings-open", "#stage", "#scroll"]) {
        const box = await page.locator(id).boundingBox();
        assert.ok(box.x >= 0 && box.x + box.width <= width && box.y + box.height <= 844, `${id} is cut`);
        assert.ok(Math.min(box.width, box.height) >= 38, `${id} is small: ${box.width} × ${box.height}`);
      }
      assert.ok((await page.locator("#scroll").boundingBox()).height > 150, "no room for the answer");
      await closePage(opened, [REFUSED]);
    }
  },

  async "has two themes"(browser) {
    const opened = await playground(browser, { colorScheme: "light" });
    const { page } = opened;
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.click("#theme");
    const dark = await ground();
    assert.notEqual(light, dark);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.reload();
    assert.equal(await ground(), dark);
    await closePage(opened, [REFUSED]);
  },

  async "begins anew, and writes again"(browser) {
    const opened = await playground(browser);
    const { page } = opened;
    await drop(page, image);
    await page.waitForSelector("#pending li");
    await more(page, { max_tokens: 6 });
    await ask(page, "One?");
    const sent = page.waitForRequest(isChat);
    await page.click('.answer footer [title="Again"]');
    assert.equal(fields(await sent).messages.length, 1);
    await page.waitForFunction(() => !document.querySelector(".running"));
    assert.equal(await page.locator(".answer").count(), 1);
    await page.click("#new");
    assert.equal(await page.locator(".turn, .frame").count(), 0);
    assert.ok(await page.locator("#welcome").isVisible());
    await page.fill("#more", JSON.stringify({ max_tokens: 7000, ignore_eos: true }));
    await page.fill("#question", "Go on and on.");
    await page.press("#question", "Enter");
    await page.waitForSelector(".answer.running");
    await page.click("#new");
    await page.fill("#more", JSON.stringify({ max_tokens: 6 }));
    await ask(page, "Two?");
    assert.equal(await page.locator(".turn").count(), 2);
    await closePage(opened, [REFUSED]);
  },

  async "shows the reference without a key and without scripts"(browser) {
    for (const javaScriptEnabled of [true, false]) {
      const opened = await openPage(browser, address, "/docs", { javaScriptEnabled });
      const { page } = opened;
      assert.equal(await page.locator("h1").textContent(), "API reference");
      assert.ok((await page.locator(".operation").count()) >= 14);
      assert.ok(await page.locator("#createChatCompletion").getByText("temperature", { exact: true }).first().isVisible());
      await page.click('.contents a[href="#createCompletion"]');
      assert.equal(await page.evaluate(() => location.hash), "#createCompletion");
      if (javaScriptEnabled) await closePage(opened);
      else assert.deepEqual(opened.wrong, []);
    }
    const opened = await openPage(browser, address, "/docs", PHONE);
    assert.ok((await opened.page.evaluate(() => document.documentElement.scrollWidth)) <= 390);
    await opened.page.click("text=Playground");
    await opened.page.waitForSelector("#question");
    await closePage(opened, [REFUSED]);
  },
};

const browser = await launch(chromium);
try {
  for (const [name, check] of Object.entries(checks)) {
    await check(browser);
    console.log(`ok  browser: ${name}`);
  }
} finally {
  await browser.close();
}
