// A page of the server in Chromium, watched: whatever it complains of, and wherever it asks, is
// written down.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

/// The browser, with nothing that would make it ask anybody else.
export function launch(executablePath) {
  return chromium.launch({
    executablePath,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/// A page in a context of its own.
export async function openPage(browser, address, path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) wrong.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    const isInside = url.protocol === "blob:" || url.protocol === "data:" || url.origin === new URL(address).origin;
    if (!isInside) wrong.push(`asks ${url.origin}`);
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  await page.goto(`${address}${path}`);
  return { page, wrong };
}

/// Nothing was complained of but what is `expected` (browsers report refused requests as errors),
/// and nothing was kept.
export async function closePage({ page, wrong }, expected = []) {
  const kept = await page.evaluate(async () => [
    localStorage.length,
    sessionStorage.length,
    document.cookie,
    (await indexedDB.databases()).length,
    (await navigator.serviceWorker?.getRegistrations())?.length ?? 0,
  ]);
  assert.deepEqual(kept, [0, 0, "", 0, 0], "the page kept something");
  const left = wrong.filter((line) => !expected.some((pattern) => pattern.test(line)));
  assert.deepEqual(left, []);
  await page.context().close();
}

/// Enters the key that the page asks for.
export async function unlock(page, key) {
  await page.waitForSelector("#key-dialog[open]");
  await page.fill("#key", key);
  await page.press("#key", "Enter");
  await page.waitForFunction(() => !document.querySelector("#model").disabled);
}

/// Lets files fall on the page.
export async function drop(page, ...files) {
  const transfer = await page.evaluateHandle(transferOf, files);
  await page.dispatchEvent("body", "dragover", { dataTransfer: transfer });
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
}

/// Pastes a file.
export async function paste(page, ...files) {
  const transfer = await page.evaluateHandle(transferOf, files);
  await page.evaluate((clipboardData) => {
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  }, transfer);
}

function transferOf(files) {
  const transfer = new DataTransfer();
  for (const { name, base64 } of files) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  return transfer;
}

/// Asks with Enter and waits for the end of the answer.
export async function ask(page, text) {
  const before = await page.locator(".answer").count();
  await page.fill("#question", text);
  await page.press("#question", "Enter");
  await page.waitForFunction(
    (before) => {
      const answers = document.querySelectorAll(".answer");
      return answers.length > before && !answers[answers.length - 1].classList.contains("running");
    },
    before,
    { timeout: 60_000 },
  );
  return page.locator(".answer").last();
}

/// Fields of the request that have no control of their own.
export async function more(page, fields) {
  if (await page.locator("#settings").isHidden()) await page.click("#settings-open");
  await page.fill("#more", JSON.stringify(fields));
}
