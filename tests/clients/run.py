"""The running binary, judged by the real openai client and by Prometheus' own parser.

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
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import openai
from prometheus_client.parser import text_string_to_metric_families

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


# What Kubernetes' inference gateway, llm-d and vLLM's dashboards read. The parser takes `_total` off
# a counter's name and knows the infos as what vLLM makes them: gauges.
ROUTERS_METRICS = {
    "vllm:num_requests_waiting": "gauge",
    "vllm:num_requests_running": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:cache_config_info": "gauge",
    "vllm:lora_requests_info": "gauge",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:num_preemptions": "counter",
    "vllm:prefix_cache_queries": "counter",
    "vllm:prefix_cache_hits": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:time_per_output_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "medgemma:encoder_cache_hits": "counter",
    "medgemma:encoder_cache_misses": "counter",
    "medgemma:images_decoded": "counter",
    "medgemma:requests_cancelled": "counter",
    "medgemma:engine_steps": "counter",
}


def metrics_url(client: openai.OpenAI) -> str:
    return str(client.base_url).removesuffix("v1/") + "metrics"


def families(client: openai.OpenAI) -> dict:
    request = urllib.request.Request(metrics_url(client), headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def value(families: dict, name: str, **labels: str) -> float:
    family = families[name.removesuffix("_total").removesuffix("_count")]
    (sample,) = (s for s in family.samples if s.name == name and labels.items() <= s.labels.items())
    return sample.value


def tells_routers_what_it_does(client: openai.OpenAI) -> None:
    try:
        urllib.request.urlopen(metrics_url(client))
        raise AssertionError("metrics without a key")
    except urllib.error.HTTPError as error:
        assert error.code == 401

    before = families(client)
    for name, kind in ROUTERS_METRICS.items():
        assert before[name].type == kind, f"{name} is a {before[name].type}"
        for sample in before[name].samples:
            assert sample.labels["model_name"] == "demo"
    (cache,) = before["vllm:cache_config_info"].samples
    assert cache.value == 1 and int(cache.labels["block_size"]) > 0 and int(cache.labels["num_gpu_blocks"]) > 0
    assert {"max_lora", "running_lora_adapters", "waiting_lora_adapters"} <= set(
        before["vllm:lora_requests_info"].samples[0].labels
    )

    usage = client.chat.completions.create(
        model="demo", messages=ask("Count this"), max_tokens=6, extra_body={"ignore_eos": True}
    ).usage
    after = families(client)

    def moved(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert moved("vllm:prompt_tokens_total") == usage.prompt_tokens
    assert moved("vllm:generation_tokens_total") == 6
    assert moved("vllm:request_success_total", finished_reason="length") == 1
    assert moved("vllm:time_to_first_token_seconds_count") == 1
    assert moved("vllm:inter_token_latency_seconds_count") == 5
    assert moved("vllm:e2e_request_latency_seconds_count") == 1
    assert moved("vllm:prefix_cache_queries_total") > 0
    assert moved("medgemma:engine_steps_total") >= 6
    assert 0 <= value(after, "vllm:kv_cache_usage_perc") <= 1


def finds_what_it_computed_before(client: openai.OpenAI) -> None:
    text = "A question that is long enough to fill several blocks of the cache. " * 8
    wish = dict(model="demo", messages=ask(text), max_tokens=4, temperature=0)

    def cached(**more) -> tuple[int, str]:
        answer = client.chat.completions.create(**wish, **more)
        return answer.usage.prompt_tokens_details.cached_tokens, answer.choices[0].message.content

    first, text_first = cached()
    again, text_again = cached()
    salted, text_salted = cached(extra_body={"cache_salt": "of my own"})
    assert first == 0 and again > 0 and salted == 0
    assert text_first == text_again == text_salted
    *_, last = client.chat.completions.create(**wish, stream=True, stream_options={"include_usage": True})
    assert last.usage.prompt_tokens_details.cached_tokens == again


def answers_to_one_prompt_share_it(client: openai.OpenAI) -> None:
    before = families(client)
    client.chat.completions.create(model="demo", messages=ask("Three times the same, please. " * 20), max_tokens=4, n=3)
    assert value(families(client), "vllm:prefix_cache_hits_total") > value(before, "vllm:prefix_cache_hits_total")


def gives_up_in_time(client: openai.OpenAI) -> None:
    try:
        client.chat.completions.create(
            model="demo",
            messages=ask("Take your time"),
            max_tokens=4000,
            extra_body={"ignore_eos": True, "timeout": 0.01},
        )
    except openai.InternalServerError as error:
        assert error.status_code == 504 and error.code == "deadline_exceeded"
        return
    raise AssertionError("4000 tokens in 10 ms")


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
    tells_routers_what_it_does,
    finds_what_it_computed_before,
    answers_to_one_prompt_share_it,
    gives_up_in_time,
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
    print(f"{len(CHECKS)} checks with the openai client {openai.__version__} in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
