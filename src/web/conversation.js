// What was said so far, and as which request it is sent.
//
// A turn is { role: "user", text, images }, { role: "assistant", thought, text, calls } or
// { role: "tool", id, text }.

/// A turn of the assistant to which chunks are added as they come.
export function openAnswer() {
  return { role: "assistant", thought: "", text: "", calls: [], finish: null, usage: null, fault: null };
}

/// Adds a chunk of a stream. Whether it brought anything that a person can see.
export function extend(answer, chunk) {
  if (chunk.usage) answer.usage = chunk.usage;
  // Of several answers that a person may have asked for, the first is shown.
  const choice = chunk.choices.find(({ index }) => index === 0);
  if (!choice) return false;
  if (choice.finish_reason) answer.finish = choice.finish_reason;
  const { content, reasoning_content: thought, tool_calls: calls } = choice.delta;
  answer.thought += thought ?? "";
  answer.text += content ?? "";
  for (const call of calls ?? []) {
    const open = (answer.calls[call.index] ??= { id: "", name: "", arguments: "" });
    open.id ||= call.id ?? "";
    open.name += call.function?.name ?? "";
    open.arguments += call.function?.arguments ?? "";
  }
  return Boolean(content || thought || calls?.length);
}

/// Whether an answer says anything.
export function says(answer) {
  return answer.text !== "" || answer.thought !== "" || answer.calls.length > 0;
}

/// The body of a request. `urlOf` says where an image is.
export function chatRequest(model, system, turns, fields, urlOf) {
  const messages = turns.map((turn) => message(turn, urlOf));
  if (system.trim()) messages.unshift({ role: "system", content: system });
  return { model, messages, ...fields, stream: true, stream_options: { include_usage: true } };
}

function message(turn, urlOf) {
  switch (turn.role) {
    case "user":
      return { role: "user", content: content(turn, urlOf) };
    case "tool":
      return { role: "tool", tool_call_id: turn.id, content: turn.text };
    default:
      return {
        role: "assistant",
        content: turn.text,
        ...(turn.calls.length > 0 && { tool_calls: turn.calls.map(called) }),
      };
  }
}

function content({ text, images }, urlOf) {
  if (images.length === 0) return text;
  const shown = images.flatMap((image) => [
    ...(image.label ? [{ type: "text", text: `${image.label}:` }] : []),
    { type: "image_url", image_url: { url: urlOf(image) } },
  ]);
  return text ? [{ type: "text", text }, ...shown] : shown;
}

function called({ id, name, arguments: written }) {
  return { id, type: "function", function: { name, arguments: written } };
}
