// The request as code: curl, Python, JavaScript. A key stands there as an environment variable, a
// image as the file that it came from.

const KEY = "MEDGEMMA_API_KEY";

/// Stands for an image until the code that reads it takes its place.
const marker = (index) => `medgemma-image-${index}`;
const MARKED = /"medgemma-image-(\d+)"/g;

/// Fields that OpenAI's Python client knows as arguments; others go through `extra_body`.
const KNOWN = new Set([
  "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "stop",
  "reasoning_effort", "response_format", "tools", "tool_choice", "parallel_tool_calls", "n", "logit_bias",
  "logprobs", "top_logprobs", "max_completion_tokens", "presence_penalty", "frequency_penalty", "user",
]);

/// What `make` gives for a body in which images are replaced.
export function snippets(make, { address, needsKey }) {
  const images = [];
  const body = make((image) => {
    if (!images.includes(image)) images.push(image);
    return marker(images.indexOf(image));
  });
  const request = { address, needsKey, body, images };
  return { curl: curl(request), python: python(request), javascript: javascript(request) };
}

function withImages(json, images, code) {
  return json.replace(MARKED, (_, index) => code(images[Number(index)]));
}

function curl({ address, needsKey, body, images }) {
  const json = JSON.stringify(body, null, 2);
  // With an image the shell reads the text, so what it would take for its own is escaped.
  const told = images.length === 0 ? json : json.replace(/[\\$`]/g, "\\$&");
  const read = (image) => `"data:${image.type};base64,$(base64 < ${quoted(image.name)} | tr -d '\\n')"`;
  return [
    `curl -N ${address}/v1/chat/completions \\`,
    `  -H "Content-Type: application/json" \\`,
    ...(needsKey ? [`  -H "Authorization: Bearer $${KEY}" \\`] : []),
    `  -d @- <<${images.length === 0 ? "'END'" : "END"}`,
    withImages(told, images, read),
    "END",
  ].join("\n");
}

/// As one word of a shell.
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function python({ address, needsKey, body, images }) {
  const read = (image) => `image(${JSON.stringify(image.name)}, "${image.type}")`;
  const literal = (value, depth) => withImages(pythonLiteral(value, depth), images, read);
  const known = Object.entries(body).filter(([name]) => KNOWN.has(name));
  const others = Object.entries(body).filter(([name]) => !KNOWN.has(name));
  const key = needsKey ? `os.environ["${KEY}"]` : `"unused"`;
  const imports = [...(images.length > 0 ? ["import base64"] : []), ...(needsKey ? ["import os"] : [])];
  return [
    ...imports,
    ...(imports.length > 0 ? [""] : []),
    "from openai import OpenAI",
    "",
    ...(images.length === 0
      ? []
      : [
          "",
          "def image(path, kind):",
          `    with open(path, "rb") as file:`,
          `        return f"data:{kind};base64,{base64.b64encode(file.read()).decode()}"`,
          "",
          "",
        ]),
    `client = OpenAI(base_url="${address}/v1", api_key=${key})`,
    "stream = client.chat.completions.create(",
    ...known.map(([name, value]) => `    ${name}=${literal(value, 1)},`),
    ...(others.length > 0 ? [`    extra_body=${literal(Object.fromEntries(others), 1)},`] : []),
    ")",
    "for chunk in stream:",
    "    for choice in chunk.choices:",
    `        print(choice.delta.content or "", end="", flush=True)`,
    "print()",
  ].join("\n");
}

function pythonLiteral(value, depth) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  // A string of JSON is one of Python.
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  const items = Array.isArray(value)
    ? value.map((item) => pythonLiteral(item, depth + 1))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${pythonLiteral(item, depth + 1)}`);
  const line = `${open}${items.join(", ")}${close}`;
  if (line.length <= 72 && !line.includes("\n")) return line;
  const pad = "    ".repeat(depth);
  return `${open}\n${items.map((item) => `${pad}    ${item},\n`).join("")}${pad}${close}`;
}

function javascript({ address, needsKey, body, images }) {
  const read = (image) => `image(${JSON.stringify(image.name)}, "${image.type}")`;
  const key = needsKey ? `process.env.${KEY}` : `"unused"`;
  return [
    ...(images.length > 0 ? [`import { readFileSync } from "node:fs";`] : []),
    `import OpenAI from "openai";`,
    "",
    ...(images.length === 0
      ? []
      : ["const image = (path, type) => `data:${type};base64,${readFileSync(path, \"base64\")}`;", ""]),
    `const client = new OpenAI({ baseURL: "${address}/v1", apiKey: ${key} });`,
    `const stream = await client.chat.completions.create(${withImages(JSON.stringify(body, null, 2), images, read)});`,
    "for await (const chunk of stream) {",
    `  process.stdout.write(chunk.choices[0]?.delta.content ?? "");`,
    "}",
  ].join("\n");
}
