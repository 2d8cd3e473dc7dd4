// Talks to the server that this page came from. Addresses are relative, so that the page also works
// below a prefix that a proxy adds.

import { events } from "./events.js";

/// What went wrong, as a sentence for people.
export class Fault extends Error {
  constructor(sentence, { status = 0, retryAfter = null } = {}) {
    super(sentence);
    this.status = status;
    /// Seconds after which another try makes sense.
    this.retryAfter = retryAfter;
  }
}

/// The API, with the key that a person has entered. It is kept here and nowhere else: a reload
/// forgets it.
export class Server {
  #key = "";

  setKey(key) {
    this.#key = key.trim();
  }

  hasKey() {
    return this.#key !== "";
  }

  /// What requests may name.
  async models() {
    const answer = await this.#ask("v1/models", {});
    return (await answer.json()).data;
  }

  /// The chunks of an answer as they come.
  async *chat(body, signal) {
    const answer = await this.#ask("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    try {
      for await (const data of events(answer.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Fault(sentence(chunk.error.message));
        yield chunk;
      }
    } catch (error) {
      if (error instanceof Fault || signal.aborted) throw error;
      throw new Fault("The connection to the server broke, so the answer is not whole.");
    }
    throw new Fault("The connection ended before the answer did, so it is not whole.");
  }

  async #ask(path, options) {
    const headers = { ...options.headers };
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    let answer;
    try {
      answer = await fetch(path, {
        ...options,
        headers,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Fault(`The server at ${location.host} cannot be reached. Is it still running?`);
    }
    if (!answer.ok) throw await faultOf(answer, this.hasKey());
    return answer;
  }
}

async function faultOf(answer, hadKey) {
  const told = await answer.json().catch(() => null);
  const message = told?.error?.message;
  const status = answer.status;
  const seconds = Number.parseInt(answer.headers.get("Retry-After"), 10);
  const retryAfter = Number.isFinite(seconds) ? seconds : null;
  const again = retryAfter === null ? "" : ` Try again in ${retryAfter} s.`;
  const make = (text) => new Fault(text, { status, retryAfter });
  if (status === 401) {
    return make(hadKey ? "The server does not accept this key." : "This server needs an API key.");
  }
  if (message) return make(sentence(message) + (status === 429 || status === 503 ? again : ""));
  return make(`The server answered with status ${status} and no explanation.${again}`);
}

function sentence(message) {
  return /[.!?]$/.test(message) ? message : `${message}.`;
}
