// An image of the playground after one question that was thought about, for the README.
//
//     node screenshot.mjs CHROMIUM ADDRESS IMAGE QUESTION FILE [dark]
//
// ADDRESS is of a server without keys; what it answers is what is seen.

import { ask, launch, openPage } from "./page.mjs";

const [chromium, address, image, question, file, colorScheme = "light"] = process.argv.slice(2);
const browser = await launch(chromium);
try {
  const { page } = await openPage(browser, address, "/", { colorScheme });
  await page.waitForFunction(() => !document.querySelector("#model").disabled);
  await page.setInputFiles("#files", image);
  await page.waitForSelector(".frame img");
  await page.selectOption("#effort", "high");
  await ask(page, question);
  await page.evaluate(() => document.activeElement.blur());
  await page.screenshot({ path: file });
} finally {
  await browser.close();
}
