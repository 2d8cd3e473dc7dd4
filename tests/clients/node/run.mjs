// The running server, judged by the openai client for JavaScript.
//
//     node run.mjs ADDRESS KEY IMAGE
//
// IMAGE is a data URI.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [address, apiKey, image] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey, maxRetries: 0, timeout: 60_000 });
const ask = (content) => ({ model: "noise", messages: [{ role: "user", content }] });

const checks = {
  async "lists its model"() {
    const models = await client.models.list();
    assert.deepEqual(models.data.map((model) => model.id), ["noise"]);
  },

  async "answers and counts"() {
    const answer = await client.chat.completions.create({ ...ask("Hello"), max_tokens: 8, temperature: 0 });
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  },

  async "streams what it answers"() {
    const wish = { ...ask("Stream this"), max_tokens: 24, temperature: 0, ignore_eos: true };
    const whole = await client.chat.completions.create(wish);
    const stream = await client.chat.completions.create({
      ...wish,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let last;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      last = chunk;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(last.usage.completion_tokens, 24);
    assert.deepEqual(last.choices, []);
  },

  async "gathers a stream into an answer"() {
    const wish = { ...ask("Gather this"), max_tokens: 16, temperature: 0, logprobs: true, top_logprobs: 2 };
    const whole = await client.chat.completions.create(wish);
    const gathered = await client.chat.completions.stream(wish).finalChatCompletion();
    assert.deepEqual(gathered.choices[0].message.content, whole.choices[0].message.content);
    assert.deepEqual(gathered.choices[0].logprobs.content, whole.choices[0].logprobs.content);
  },

  async "takes images"() {
    const parts = [
      { type: "text", text: "What do you see?" },
      { type: "image_url", image_url: { url: image } },
    ];
    const answer = await client.chat.completions.create({ ...ask(parts), max_tokens: 2 });
    assert.ok(answer.usage.prompt_tokens > 256);
  },

  async "completes text"() {
    const answer = await client.completions.create({ model: "noise", prompt: "The heart", max_tokens: 4 });
    assert.equal(answer.object, "text_completion");
  },

  async "refuses in the client's own classes"() {
    const wish = { ...ask("Hi"), max_tokens: 2 };
    await assert.rejects(client.chat.completions.create({ ...wish, model: "gpt-9" }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      return true;
    });
    await assert.rejects(client.chat.completions.create({ ...wish, temperature: 3 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, "temperature");
      return true;
    });
    const stranger = client.withOptions({ apiKey: "wrong" });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  },

  async "lets go of an answer that is aborted"() {
    const stream = await client.chat.completions.create({
      ...ask("Talk"),
      max_tokens: 4000,
      stream: true,
      ignore_eos: true,
    });
    let chunks = 0;
    for await (const _ of stream) {
      chunks += 1;
      if (chunks === 2) stream.controller.abort();
    }
    assert.ok(chunks < 4000);
    const answer = await client.chat.completions.create({ ...ask("Still there?"), max_tokens: 1 });
    assert.equal(answer.usage.completion_tokens, 1);
  },

  async "times out as the client says"() {
    const hasty = client.withOptions({ timeout: 50 });
    const wish = { ...ask("Take your time"), max_tokens: 4000, ignore_eos: true };
    await assert.rejects(hasty.chat.completions.create(wish), OpenAI.APIConnectionTimeoutError);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok  openai for JavaScript: ${name}`);
}
