"""Trains of thought through the openai client."""

import json
import urllib.request

from messages import ask
from openai_chat import connect
from server import Server, serving


def ids(server: Server, text: str) -> list[int]:
    body = json.dumps({"prompt": text, "add_special_tokens": False}).encode()
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.address}/tokenize", body, headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tokens"]


def tells_thoughts_from_answers(server: Server) -> None:
    with serving(server.binary, "--thinking", "on-request") as thinker:
        client = connect(thinker)
        (begin,) = ids(thinker, "<unused94>")
        (word, *_) = ids(thinker, "heart")
        wish = dict(
            model="noise",
            messages=ask("Think."),
            max_tokens=48,
            temperature=0,
            frequency_penalty=2,
            # Noise seldom thinks by itself.
            logit_bias={str(begin): 100, str(word): 90},
        )
        bounded = {"ignore_eos": True, "thinking_token_budget": 16}
        answer = client.chat.completions.create(**wish, reasoning_effort="low", extra_body=bounded)
        message = answer.choices[0].message
        thought = answer.usage.completion_tokens_details.reasoning_tokens
        assert message.reasoning_content and message.reasoning == message.reasoning_content
        # The markers that stand around it may be counted.
        assert 0 < thought <= 16 + 2, thought
        assert "unused9" not in message.content

        streamed = {"reasoning_content": "", "content": ""}
        stream = client.chat.completions.create(**wish, reasoning_effort="low", extra_body=bounded, stream=True)
        for chunk in stream:
            for name in streamed:
                streamed[name] += getattr(chunk.choices[0].delta, name, None) or ""
        assert streamed == {"reasoning_content": message.reasoning_content, "content": message.content}

        silent = client.chat.completions.create(**wish, reasoning_effort="none", extra_body={"ignore_eos": True})
        assert silent.usage.completion_tokens_details.reasoning_tokens == 0
        assert not getattr(silent.choices[0].message, "reasoning_content", None)


CHECKS = [tells_thoughts_from_answers]
