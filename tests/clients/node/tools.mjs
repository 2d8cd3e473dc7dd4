// Tools and structured output through the openai client for JavaScript.
//
//     node tools.mjs ADDRESS KEY PARAMETERS
//
// PARAMETERS is the JSON schema of a finding.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [address, apiKey, parameters] = process.argv.slice(2);
const schema = JSON.parse(parameters);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey, maxRetries: 0, timeout: 60_000 });
const wish = {
  model: "noise",
  messages: [{ role: "user", content: "Report." }],
  max_tokens: 256,
  temperature: 1,
  seed: 5,
};

function check(finding) {
  assert.ok(schema.properties.organ.enum.includes(finding.organ));
  assert.ok(finding.severity >= 0 && finding.severity <= 9);
  assert.equal(typeof finding.urgent, "boolean");
}

const tools = [{ type: "function", function: { name: "report_finding", parameters: schema } }];
const must = { ...wish, tools, tool_choice: "required", parallel_tool_calls: false };
const called = await client.chat.completions.create(must);
const [call] = called.choices[0].message.tool_calls;
check(JSON.parse(call.function.arguments));
console.log("ok  openai for JavaScript: calls a tool that it must call");

const gathered = await client.chat.completions.stream(must).finalChatCompletion();
assert.equal(gathered.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
console.log("ok  openai for JavaScript: streams the call that it makes");

const format = { type: "json_schema", json_schema: { name: "finding", schema, strict: true } };
const parsed = await client.chat.completions.parse({ ...wish, response_format: format });
check(JSON.parse(parsed.choices[0].message.content));
console.log("ok  openai for JavaScript: keeps to a schema");
