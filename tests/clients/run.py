"""The running binary, judged by the real openai client.

    python run.py path/to/medgemma

Starts `medgemma serve demo` on a free port, talks to it as a user's program would, and stops it.
The demo's words are noise, so what is checked is everything around them.
"""

import base64
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import openai

KEY = "a-key-for-this-run"


def start(binary: str) -> tuple[subprocess.Popen, str]:
    """The server and its address, once it says that it can answer."""
    server = subprocess.Popen(
        [binary, "serve", "demo", "--port", "0", "--api-key", KEY, "--log-level", "warn"],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in server.stdout:
        if found := re.search(r"listening on (http://\S+)", line):
            return server, found.group(1)
    raise SystemExit(f"the server ended with {server.wait()} before it listened")


def png(width: int, height: int) -> str:
    """A grey ramp as a data URI, made by hand so that no imaging package is needed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x + y) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def ask_about(picture: str, *more: str) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (picture, *more)]
    return [{"role": "user", "content": [{"type": "text", "text": "What do you see?"}, *parts]}]


def lists_and_names_its_model(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "demo"
    assert client.models.retrieve("demo").max_model_len > 256


def answers_and_counts(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=ask("Hello"), max_tokens=8, temperature=0)
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and isinstance(choice.message.content, str)
    assert choice.finish_reason in ("length", "stop")
    assert 1 <= answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def streams_what_it_answers(client: openai.OpenAI) -> None:
    wish = dict(model="demo", messages=ask("Stream this"), max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
    whole = client.chat.completions.create(**wish)
    chunks = list(client.chat.completions.create(**wish, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 24


def takes_pictures(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="demo", messages=ask("What do you see?"), max_tokens=1)
    for count in (1, 2):
        seen = client.chat.completions.create(
            model="demo", messages=ask_about(*[png(64 + n, 48) for n in range(count)]), max_tokens=4
        )
        assert seen.usage.prompt_tokens >= plain.usage.prompt_tokens + 256 * count


def gives_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=ask("How sure?"), max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0


def repeats_a_seed_and_varies_without(client: openai.OpenAI) -> None:
    def draw(**wish) -> list[str]:
        answer = client.chat.completions.create(
            model="demo", messages=ask("Draw"), max_tokens=16, temperature=1, n=2, **wish
        )
        return [choice.message.content for choice in answer.choices]

    first = draw(seed=7)
    assert first == draw(seed=7)
    assert first[0] != first[1]
    assert draw() != draw()


def completes_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="demo", prompt=["The heart", "The lungs"], max_tokens=4, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]


def refuses_in_the_clients_own_classes(client: openai.OpenAI) -> None:
    def refused(kind: type[openai.APIStatusError], **wish) -> openai.APIStatusError:
        try:
            client.chat.completions.create(**{"model": "demo", "messages": ask("Hi"), "max_tokens": 4, **wish})
        except kind as error:
            assert error.body["message"], "an error without words"
            return error
        raise AssertionError(f"{wish} was taken")

    assert refused(openai.NotFoundError, model="gpt-9").code == "model_not_found"
    assert refused(openai.BadRequestError, temperature=-1).param == "temperature"
    assert refused(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f"}}]).param == "tools"
    assert refused(openai.BadRequestError, messages=ask("word " * 20000)).code == "context_length_exceeded"
    broken = refused(openai.BadRequestError, messages=ask_about("data:image/png;base64,AAAA"))
    assert broken.param == "messages[0].content[1]"
    refused(openai.BadRequestError, messages=ask_about("https://example.org/a.png"))
    try:
        client.with_options(api_key="wrong").models.list()
    except openai.AuthenticationError:
        return
    raise AssertionError("a wrong key was taken")


def serves_many_and_survives_those_who_leave(client: openai.OpenAI) -> None:
    def leave(_: int) -> None:
        stream = client.chat.completions.create(
            model="demo", messages=ask("Talk"), max_tokens=512, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()

    def stay(_: int) -> str:
        answer = client.chat.completions.create(model="demo", messages=ask("Stay"), max_tokens=16, temperature=0)
        return answer.choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        leaving = pool.map(leave, range(8))
        staying = set(pool.map(stay, range(8)))
        list(leaving)
    assert len(staying) == 1


CHECKS = [
    lists_and_names_its_model,
    answers_and_counts,
    streams_what_it_answers,
    takes_pictures,
    gives_logprobs,
    repeats_a_seed_and_varies_without,
    completes_text,
    refuses_in_the_clients_own_classes,
    serves_many_and_survives_those_who_leave,
]


def main() -> None:
    began = time.monotonic()
    server, address = start(sys.argv[1])
    try:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=60)
        for check in CHECKS:
            check(client)
            print(f"ok  {check.__name__.replace('_', ' ')}", flush=True)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=30)
    assert code == 0, f"the server ended with {code}"
    print(f"{len(CHECKS)} checks of the openai client {openai.__version__} in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
