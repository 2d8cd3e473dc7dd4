"""A storm of clients against the running binary, and what must be left of it: nothing.

    python soak.py path/to/medgemma [--seconds 20] [--clients 64] [--seed N]

Starts `medgemma serve` with a small queue and a small KV cache on a free loopback port, and for
the given time sends it chats, completions, streams and images, some with time limits, priorities
and salts, among requests that are malformed, that are left in the middle, and whose connections are
cut. Every answer must be complete or an error in OpenAI's shape that the request deserves. Then no
block may be held and memory may not have grown, and SIGTERM must end the process with 0.
"""

import argparse
import asyncio
import base64
import collections
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass, field

import aiohttp
from openai import APIStatusError, AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from server import NOISE

KEYS = ["soak-key-number-one", "soak-key-number-two"]
METRICS_KEY = "soak-key-of-metrics"
# Small enough that 64 clients overrun the queue and that sequences lose their blocks to others.
LIMITS = [
    *("--max-num-seqs", "16", "--max-queued-requests", "24", "--max-num-batched-tokens", "512"),
    *("--max-model-len", "1024", "--kv-cache-memory", "3MiB", "--encoder-cache-memory", "256KiB"),
]
# What requests hold at a moment differs by some images of 2.4 MB; what leaks grows without end.
MAX_GROWTH_BYTES = 24 << 20
# glibc gives each thread a heap and keeps the most that each has held, which takes minutes to level
# off. With one heap, what is measured is what the program holds.
ENVIRONMENT = os.environ | {"MALLOC_ARENA_MAX": "1"}
# How long a single answer may take on a busy machine, and how long the server may take to be empty.
PATIENCE, REST = 120, 30


def png(width: int, height: int) -> str:
    """A grey ramp as a data URI."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x + y) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


IMAGES = [png(16 + 8 * n, 24) for n in range(6)]
# Several requests begin alike, so that blocks are shared and found again.
BEGINNINGS = ["You are a radiologist. " * repeats for repeats in (1, 4, 12)]
WORDS = "heart lungs bones normal clear left right upper lower opacity".split()

BAD = [
    ("/v1/chat/completions", "{", 400),
    ("/v1/chat/completions", "[]", 400),
    ("/v1/chat/completions", {"messages": []}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "temperature": -1}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "timeout": 0}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "cache_salt": ""}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 5000}]}, 400),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
            ]
        },
        400,
    ),
    ("/v1/completions", {"prompt": [-1]}, 400),
    ("/v1/completions", {"prompt": "a", "n": 129}, 400),
    # More answers than could ever wait: no matter of trying again.
    ("/v1/completions", {"prompt": "a", "n": 100}, 400),
    ("/v1/completions", {"model": "gpt-9", "prompt": "a"}, 404),
    ("/nowhere", {}, 404),
]


@dataclass
class Storm:
    address: str
    until: float
    # What each client waits for, for the report.
    asked: dict[random.Random, dict] = field(default_factory=dict)
    seen: collections.Counter = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    # What the same greedy request was answered first: neighbours must not change it.
    greedy: dict[str, str] = field(default_factory=dict)

    def over(self) -> bool:
        return time.monotonic() >= self.until or len(self.wrong) > 20

    def complain(self, about: str, *what: object) -> None:
        self.wrong.append(f"{about}: {' '.join(str(part)[:300] for part in what)}")


def headers(dice: random.Random) -> dict[str, str]:
    return {"Authorization": f"Bearer {dice.choice(KEYS)}", "Content-Type": "application/json"}


def question(dice: random.Random) -> tuple[str, dict]:
    """A request that deserves an answer, and where it goes."""
    text = dice.choice(BEGINNINGS) + " ".join(dice.choices(WORDS, k=dice.choice([1, 1, 4, 16])))
    body: dict = {"max_tokens": dice.choice([1, 8, 32, 100]), "ignore_eos": True}
    body["temperature"] = dice.choice([0, 1])
    if dice.random() < 0.2:
        body["n"] = dice.randint(2, 4)
    if dice.random() < 0.3:
        body["priority"] = dice.randint(-3, 3)
    if dice.random() < 0.2:
        body["cache_salt"] = dice.choice(["one", "two"])
    if dice.random() < 0.2:
        body["timeout"] = dice.choice([0.001, 0.05, 0.5, 5])
    elif body.get("priority", 0) > 0:
        # While the overload lasts there is always somebody more urgent, so that it could wait for ever.
        body["timeout"] = 20
    if dice.random() < 0.1:
        body |= {"logprobs": True, "top_logprobs": 3}
    if dice.random() < 0.4:
        body.pop("top_logprobs", None)
        if body.pop("logprobs", None):
            body["logprobs"] = 2
        body["prompt"] = text
        return "/v1/completions", body
    content: object = text
    if dice.random() < 0.25:
        shown = dice.choices(IMAGES, k=dice.choice([1, 1, 2]))
        content = [{"type": "image_url", "image_url": {"url": url}} for url in shown]
        content.append({"type": "text", "text": text})
    body["messages"] = [{"role": "user", "content": content}]
    return "/v1/chat/completions", body


def deserved(error: object, status: int | None, body: dict) -> str | None:
    """What is wrong with an error as the answer to a good request; `status` is absent in a stream."""
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        return "not in OpenAI's shape"
    code = error["code"]
    if code == "deadline_exceeded":
        return None if "timeout" in body and status in (504, None) else "no time limit was set"
    if code == "rate_limit_exceeded":
        return None if status == 429 else f"429 as {status}"
    return "undeserved"


def check_whole(storm: Storm, body: dict, answer: dict) -> None:
    choices, usage = answer.get("choices", []), answer.get("usage", {})
    wanted = body.get("n", 1)
    if [choice["index"] for choice in choices] != list(range(wanted)):
        storm.complain("choices", answer)
    if any(choice["finish_reason"] != "length" for choice in choices):
        storm.complain("finish_reason", choices)
    if usage.get("completion_tokens") != wanted * body["max_tokens"]:
        storm.complain("completion_tokens", body, usage)
    if not 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]:
        storm.complain("cached_tokens", usage)
    texts = [choice["message"]["content"] if "message" in choice else choice["text"] for choice in choices]
    check_text(storm, body, texts)
    storm.seen["complete answers"] += wanted


def check_text(storm: Storm, body: dict, texts: list[str]) -> None:
    if body["temperature"] != 0:
        return
    asked = {name: body.get(name) for name in ("messages", "prompt", "max_tokens")}
    for text in texts:
        known = storm.greedy.setdefault(json.dumps(asked), text)
        if known != text:
            storm.complain("the same question was answered otherwise", repr(known), repr(text))


async def ask(storm: Storm, session: aiohttp.ClientSession, dice: random.Random) -> None:
    """A good request, to its end."""
    path, body = question(dice)
    storm.asked[dice] = body
    if dice.random() < 0.5:
        await ask_streaming(storm, session, dice, path, body)
        return
    async with session.post(storm.address + path, json=body, headers=headers(dice)) as response:
        answer = await response.json()
        if response.status == 200:
            check_whole(storm, body, answer)
        else:
            await refused(storm, response, answer, body)


async def refused(storm: Storm, response: aiohttp.ClientResponse, answer: dict, body: dict) -> None:
    if wrong := deserved(answer.get("error"), response.status, body):
        storm.complain(wrong, response.status, answer, body)
    storm.seen[str(answer.get("error", {}).get("code"))] += 1
    if response.status == 429:
        after = response.headers.get("Retry-After", "")
        if not after.isdigit() or not 1 <= int(after) <= 60:
            storm.complain("Retry-After", after)
            return
        left = max(0, storm.until - time.monotonic())
        await asyncio.sleep(min(int(after), left))


async def events(response: aiohttp.ClientResponse):
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[len(b"data: ") :].strip()


async def ask_streaming(
    storm: Storm, session: aiohttp.ClientSession, dice: random.Random, path: str, body: dict
) -> None:
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with session.post(storm.address + path, json=body, headers=headers(dice)) as response:
        if response.status != 200:
            await refused(storm, response, await response.json(), body)
            return
        texts, finished, usage, error, done = collections.defaultdict(str), {}, None, None, False
        async for event in events(response):
            if done:
                storm.complain("something after [DONE]", event)
            if event == b"[DONE]":
                done = True
                continue
            chunk = json.loads(event)
            error = chunk.get("error", error)
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                delta = choice.get("delta", {}).get("content") or choice.get("text") or ""
                texts[choice["index"]] += delta
                if choice.get("finish_reason"):
                    finished[choice["index"]] = choice["finish_reason"]
    if not done:
        storm.complain("a stream without [DONE]", body)
    elif error is not None:
        if wrong := deserved(error, None, body):
            storm.complain(wrong, error, body)
        storm.seen[f"{error.get('code')} in a stream"] += 1
    else:
        wanted = body.get("n", 1)
        if sorted(finished) != list(range(wanted)) or set(finished.values()) != {"length"}:
            storm.complain("a stream's ends", finished, body)
        if usage is None or usage["completion_tokens"] != wanted * body["max_tokens"]:
            storm.complain("a stream's usage", usage, body)
        plain = {name: value for name, value in body.items() if not name.startswith("stream")}
        check_text(storm, plain, [texts[index] for index in range(wanted)])
        storm.seen["complete answers"] += wanted


async def leave(storm: Storm, session: aiohttp.ClientSession, dice: random.Random) -> None:
    """A stream that is left after some of it, or a whole answer that is not waited for."""
    path, body = question(dice)
    body["max_tokens"] = 400
    body["stream"] = dice.random() < 0.7
    try:
        async with asyncio.timeout(dice.choice([0.01, 0.1, 0.5])):
            async with session.post(storm.address + path, json=body, headers=headers(dice)) as response:
                if response.status != 200:
                    await refused(storm, response, await response.json(), body)
                    return
                left = dice.randint(0, 20)
                async for _ in events(response):
                    left -= 1
                    if left < 0:
                        break
                response.close()
    except TimeoutError:
        pass
    storm.seen["left"] += 1


async def cut(storm: Storm, dice: random.Random) -> None:
    """A connection that is reset: in the middle of the request, or once it was sent."""
    path, body = question(dice)
    content = json.dumps(body | {"stream": True, "max_tokens": 400}).encode()
    host, port = storm.address.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEYS[0]}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(request[: dice.choice([len(request), dice.randrange(len(request))])])
    await writer.drain()
    await asyncio.sleep(dice.choice([0, 0.05, 0.3]))
    # Zero time to linger: the kernel sends RST rather than FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    storm.seen["cut"] += 1


async def err(storm: Storm, session: aiohttp.ClientSession, dice: random.Random) -> None:
    """A request that deserves no answer."""
    path, body, status = dice.choice(BAD)
    data = body if isinstance(body, str) else json.dumps(body)
    send, expected = headers(dice), {status}
    if dice.random() < 0.1:
        # So many wrong keys come from here that the server soon answers them with 429.
        send, expected = send | {"Authorization": "Bearer wrong"}, {401, 429}
    async with session.post(storm.address + path, data=data, headers=send) as response:
        answer = await response.json()
        if response.status not in expected or set(answer.get("error", {})) != {"message", "type", "param", "code"}:
            storm.complain("a bad request", response.status, answer, data)
        storm.seen["refused"] += 1


async def ask_by_sdk(storm: Storm, sdk: AsyncOpenAI, dice: random.Random) -> None:
    """As a program does that tries again by itself."""
    try:
        answer = await sdk.chat.completions.create(
            model="noise",
            messages=[{"role": "user", "content": dice.choice(WORDS)}],
            max_tokens=8,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
        if answer.usage.completion_tokens != 8:
            storm.complain("the SDK's answer", answer)
        storm.seen["complete answers"] += 1
    except APIStatusError as error:
        if error.status_code != 429:
            storm.complain("the SDK", error)
        storm.seen["the SDK gave up at 429"] += 1


async def client(storm: Storm, session: aiohttp.ClientSession, sdk: AsyncOpenAI, seed: int) -> None:
    dice = random.Random(seed)
    while not storm.over():
        kinds = {ask: 10, leave: 4, cut: 2, err: 3, ask_by_sdk: 1}
        kind = dice.choices(list(kinds), weights=list(kinds.values()))[0]
        try:
            async with asyncio.timeout(PATIENCE):
                if kind is cut:
                    await cut(storm, dice)
                elif kind is ask_by_sdk:
                    await ask_by_sdk(storm, sdk, dice)
                else:
                    await kind(storm, session, dice)
        except Exception as error:
            storm.complain(kind.__name__, repr(error), storm.asked.get(dice) if kind is ask else "")


def resident_bytes(process: subprocess.Popen) -> int:
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


async def watch(storm: Storm, process: subprocess.Popen, sizes: list[int]) -> None:
    while not storm.over():
        sizes.append(resident_bytes(process))
        await asyncio.sleep(0.25)


async def metrics(storm: Storm, session: aiohttp.ClientSession) -> dict[str, float]:
    """Sums over labels, by name."""
    key = {"Authorization": f"Bearer {METRICS_KEY}"}
    async with session.get(storm.address + "/metrics", headers=key) as response:
        text = await response.text()
    sums: dict[str, float] = collections.defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] += sample.value
            if state := sample.labels.get("state"):
                sums[f"{sample.name} {state}"] += sample.value
            if reason := sample.labels.get("finished_reason"):
                sums[f"{sample.name} {reason}"] += sample.value
    return sums


async def check_rest(storm: Storm, session: aiohttp.ClientSession) -> None:
    """After the storm nothing may run, wait or hold a block."""
    gone = ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "medgemma:kv_blocks used"]
    until = time.monotonic() + REST
    while True:
        now = await metrics(storm, session)
        held = {name: now[name] for name in gone if now[name] != 0}
        if not held:
            break
        if time.monotonic() > until:
            storm.complain("left over", held)
            break
        await asyncio.sleep(0.1)
    counted = now["vllm:request_success_total stop"] + now["vllm:request_success_total length"]
    if counted < storm.seen["complete answers"]:
        storm.complain("answers that were not counted", counted, storm.seen["complete answers"])
    for name in ("num_preemptions", "prefix_cache_hits", "prefix_cache_queries", "generation_tokens"):
        print(f"  {name:24} {now[f'vllm:{name}_total']:.0f}")
    print(f"  {'encoder cache':24} {now['medgemma:encoder_cache_hits_total']:.0f} hits, ", end="")
    print(f"{now['medgemma:encoder_cache_misses_total']:.0f} misses")


def check_size(storm: Storm, sizes: list[int]) -> None:
    """The last fifth of the samples against the fifth in the middle: what was never given back in either."""
    fifth = max(1, len(sizes) // 5)
    middle = min(sizes[2 * fifth : 3 * fifth] or sizes)
    end = min(sizes[-fifth:])
    course = " ".join(f"{size / 2**20:.0f}" for size in sizes[:: max(1, len(sizes) // 20)])
    print(f"  {'memory':24} {course} MiB")
    if end - middle > MAX_GROWTH_BYTES:
        storm.complain("memory grew", middle, end)


async def storm_over(process: subprocess.Popen, address: str, options: argparse.Namespace) -> Storm:
    storm, sizes = Storm(address, time.monotonic() + options.seconds), []
    # No limit of the client's own may hold back the overload.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key=KEYS[0], max_retries=2, timeout=PATIENCE) as sdk:
            clients = [client(storm, session, sdk, options.seed * 1000 + at) for at in range(options.clients)]
            await asyncio.gather(watch(storm, process, sizes), *clients)
            for what, times in sorted(storm.seen.items()):
                print(f"  {what:24} {times}")
            await check_rest(storm, session)
            check_size(storm, sizes)
    return storm


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"{options.clients} clients for {options.seconds} s, --seed {options.seed}", flush=True)
    # Whose requests may go before all others, which is what they ask for.
    keys = [argument for key in KEYS for argument in ("--api-key", key, "--priority-api-key", key)] + ["--metrics-key", METRICS_KEY]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [options.binary, "serve", NOISE, "--port", "0", "--log-level", "warn", *keys, *LIMITS],
            stdout=subprocess.PIPE,
            stderr=log,
            env=ENVIRONMENT,
            text=True,
        )
        try:
            found = re.search(r"listening on (http://\S+)", process.stdout.readline())
            if not found:
                raise SystemExit(f"the server ended with {process.wait()} before it listened")
            storm = asyncio.run(storm_over(process, found.group(1), options))
            process.send_signal(signal.SIGTERM)
            if code := process.wait(timeout=60):
                storm.complain("exit code", code)
        finally:
            process.kill()
            log.seek(0)
            logged = log.read()
    if "panicked" in logged:
        storm.complain("the log", logged[-2000:])
    for wrong in storm.wrong:
        print(f"WRONG {wrong}")
    if storm.wrong:
        print(logged[-2000:])
        raise SystemExit(1)
    if not storm.seen["complete answers"] or not storm.seen["rate_limit_exceeded"]:
        raise SystemExit("the storm was none: no answer, or nobody was refused")
    print("nothing is left of it")


if __name__ == "__main__":
    main()
