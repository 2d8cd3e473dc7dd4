"""Hostile requests against the running binary, beside clients that only want their answers.

    python hostile.py path/to/medgemma [--requests 1000] [--seed N] [--max-gap SECONDS] [--max-growth MIB]

Starts `medgemma serve demo` on a free loopback port. Sixteen clients stream the same questions again
and again, while requests of some forty kinds that are made to harm are sent, a few at a time, drawn by
the seed. Every stream must be what it was before the attack, to the letter. Every hostile request must
be answered by an error, by an answer, or by the end of its connection; a 500 is a fault. At the end
nothing may run, memory of the server and its processes may not have grown by more than --max-growth, and it
must be the same process, which ends with 0 when it is told to.
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
import struct
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass, field

# A KV cache whose pages are all in use soon, so that what is measured is what the requests leave behind.
SERVER_OPTIONS = ["--port", "0", "--log-level", "warn", "--kv-cache-memory", "16MiB"]
NUM_GOOD = 16
NUM_HOSTILE_AT_A_TIME = 12
# How long one hostile request is followed.
PATIENCE = 60
QUESTIONS = [
    {"prompt": f"The film shows {what}", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
    for what in ("an opacity", "no effusion", "a marker", "the heart")
]


# What is sent: images, schemas, grammars, bodies.


def png(width: int, height: int, rows: bytes | None = None, claim: tuple[int, int] | None = None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *(claim or (width, height)), 8, 0, 0, 0, 0)
    data = zlib.compress(bytes((width + 1) * height) if rows is None else rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def image(data: bytes, kind: str = "image/png") -> dict:
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 2}


def chat(**fields: object) -> dict:
    return {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4} | fields


def lark(grammar: str) -> dict:
    return chat(structured_outputs={"grammar": grammar})


def schema(of: object) -> dict:
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": of}})


def chain(links: int, link) -> dict:
    named = {f"d{n}": link({"$ref": f"#/$defs/d{n + 1}"}) for n in range(links)}
    return {"$defs": named | {f"d{links}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def rules(links: int, name: str) -> str:
    return f"start: {name}0\n" + "".join(f'{name}{n}: "a{n}" {name}{n + 1}\n' for n in range(links)) + f'{name}{links}: "z"\n'


def nested(depth: int) -> str:
    return '{"messages": ' + "[" * depth + "]" * depth + "}"


def mutated(dice: random.Random) -> dict:
    data = bytearray(png(64, 64))
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return image(bytes(data[: dice.choice([len(data), dice.randrange(8, len(data))])]))


Body = dict | str | bytes

# Each is a path and a body, made anew for each request.
BODIES = {
    "a chain of rules": lambda dice: ("chat/completions", lark(rules(dice.randint(400, 3000), "r"))),
    "a chain of terminals": lambda dice: ("chat/completions", lark(rules(dice.randint(400, 3000), "T"))),
    "a chain of $ref": lambda dice: ("chat/completions", schema(chain(dice.randint(400, 3000), lambda to: to))),
    "a chain through properties": lambda dice: (
        "chat/completions",
        schema(chain(dice.randint(100, 2000), lambda to: {"type": "object", "properties": {"a": to}, "required": ["a"]})),
    ),
    "a chain through allOf": lambda dice: ("chat/completions", schema(chain(dice.randint(200, 2000), lambda to: {"allOf": [to]}))),
    "a chain in a tool": lambda dice: (
        "chat/completions",
        chat(
            tools=[{"type": "function", "function": {"name": "f", "parameters": chain(1000, lambda to: {"anyOf": [to]})}}],
            tool_choice="required",
        ),
    ),
    "multiples without end": lambda dice: (
        "chat/completions",
        schema({"type": "integer", "allOf": [{"multipleOf": dice.randint(9000, 9999)} for _ in range(4)]}),
    ),
    "multiples that are not whole": lambda dice: (
        "chat/completions",
        schema({"type": "number", "allOf": [{"multipleOf": dice.randint(9000, 9999) / 10} for _ in range(4)]}),
    ),
    "an ambiguous grammar": lambda dice: (
        "chat/completions",
        lark(f'start: e\ne: e e | /[a-z ]/ | e e e | "{dice.random()}"') | {"max_tokens": 100, "temperature": 1},
    ),
    "many ambiguous grammars": lambda dice: (
        "chat/completions",
        lark(f'start: e\ne: e e | /[a-z ]/ | e e e | "{dice.random()}"') | {"max_tokens": 60, "n": 8, "temperature": 1},
    ),
    "a regex that counts": lambda dice: (
        "chat/completions",
        chat(structured_outputs={"regex": f"(a{{{dice.randint(10, 2000)}}}|b){{{dice.randint(10, 2000)}}}"}),
    ),
    "a regex of many states": lambda dice: ("chat/completions", chat(structured_outputs={"regex": f".*a.{{{dice.randint(8, 24)}}}"})),
    "nested brackets": lambda dice: ("chat/completions", chat(structured_outputs={"regex": "(" * 5000 + ")" * 5000})),
    "many choices": lambda dice: (
        "chat/completions",
        chat(structured_outputs={"choice": [f"{dice.random()}" for _ in range(4000)]}),
    ),
    "a wide enum": lambda dice: ("chat/completions", schema({"enum": [dice.random() for _ in range(15000)]})),
    "alternatives of alternatives": lambda dice: (
        "chat/completions",
        schema(chain(dice.randint(8, 30), lambda to: {"type": "array", "items": {"anyOf": [to, to, to]}})),
    ),
    "a deep schema": lambda dice: ("chat/completions", '{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":' + '{"items":' * 500 + "{}" + "}" * 500 + "}}}"),
    "a thin image": lambda dice: ("chat/completions", image(png(1, dice.randint(1 << 17, 1 << 20)))),
    "a wide thin image": lambda dice: ("chat/completions", image(png(dice.randint(1 << 17, 1 << 20), 1))),
    "an image that claims more": lambda dice: ("chat/completions", image(png(4, 4, claim=(dice.choice([60000, 2**31 - 1]), 60000)))),
    "an image bomb": lambda dice: ("chat/completions", image(png(6000, 6000))),
    "a damaged image": lambda dice: ("chat/completions", mutated(dice)),
    "noise as an image": lambda dice: ("chat/completions", image(dice.randbytes(dice.randint(1, 5000)), "image/jpeg")),
    "many images": lambda dice: (
        "chat/completions",
        {"messages": [{"role": "user", "content": image(png(8, 8))["messages"][0]["content"][:1] * 500}]},
    ),
    "many parts": lambda dice: (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * dice.choice([5_000, 50_000])}]},
    ),
    "many messages": lambda dice: ("chat/completions", {"messages": [{"role": "user", "content": ""}] * 50_000}),
    "deep JSON": lambda dice: ("chat/completions", nested(dice.choice([100, 10_000, 200_000]))),
    "many unknown fields": lambda dice: ("chat/completions", chat(**{f"x{n}": n for n in range(20_000)})),
    "a long unknown field": lambda dice: ("chat/completions", chat(metadata={"a": "b" * 3_000_000})),
    "a long prompt": lambda dice: ("completions", {"prompt": "word " * dice.choice([10_000, 400_000])}),
    "one letter": lambda dice: ("completions", {"prompt": "a" * 1_000_000}),
    "numbers out of range": lambda dice: (
        "chat/completions",
        chat(**{dice.choice(["temperature", "top_p", "n", "max_tokens", "seed", "top_k"]): dice.choice([-1, 1e308, 10**30, "a", [], None])}),
    ),
    "all of the queue": lambda dice: ("completions", {"prompt": "x", "n": 128, "max_tokens": 3}),
    "log-probabilities of all": lambda dice: ("completions", {"prompt": "word " * 500, "logprobs": 20, "prompt_logprobs": 20, "max_tokens": 1}),
    "half a JSON": lambda dice: ("chat/completions", json.dumps(chat())[: dice.randint(1, 60)]),
    "bytes": lambda dice: ("chat/completions", dice.randbytes(dice.randint(1, 4000))),
    "a tool's history": lambda dice: (
        "chat/completions",
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{" * 3000}}]}]},
    ),
    "responses": lambda dice: ("responses", {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}] * 20_000}]}),
    "messages": lambda dice: ("messages", {"model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}] * 20_000}),
}


def whole(path: str, body: Body, head: str = "") -> bytes:
    if isinstance(body, dict):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    start = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{start}{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


# Each is the bytes of a connection.
HEADS = {
    "no HTTP": lambda dice: dice.randbytes(500) + b"\r\n\r\n",
    "a TLS hello": lambda dice: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(200),
    "two lengths": lambda dice: b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length below nothing": lambda dice: b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\nhello",
    "a broken chunk": lambda dice: b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nfffffffffffffffff\r\nx",
    "a head that is too long": lambda dice: b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "another host": lambda dice: whole("completions", {"prompt": "x", "max_tokens": 1}).replace(b"Host: 127.0.0.1", b"Host: evil.example"),
    "no host": lambda dice: whole("completions", {"prompt": "x", "max_tokens": 1}).replace(b"Host: 127.0.0.1\r\n", b""),
    "another origin": lambda dice: whole("completions", {"prompt": "x", "max_tokens": 1}, "Origin: http://evil.example\r\n"),
    "a form": lambda dice: whole("completions", "prompt=x").replace(b"application/json", b"text/plain"),
    "a path that climbs": lambda dice: b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}


@dataclass
class Attack:
    host: str
    port: int
    answers: dict[int, str] = field(default_factory=dict)
    streams: int = 0
    worst_gap: float = 0.0
    is_over: bool = False
    statuses: dict[str, collections.Counter] = field(default_factory=lambda: collections.defaultdict(collections.Counter))
    wrong: list[str] = field(default_factory=list)

    async def connect(self):
        return await asyncio.open_connection(self.host, self.port)

    async def stream(self, at: int) -> None:
        """A good client's question, from the first to the last token."""
        question = QUESTIONS[at % len(QUESTIONS)]
        reader, writer = await self.connect()
        writer.write(whole("completions", question | {"stream": True}, "Connection: close\r\n"))
        text, last, is_done = [], None, False
        while line := await asyncio.wait_for(reader.readline(), PATIENCE):
            if not line.startswith(b"data: "):
                continue
            now = time.monotonic()
            if last is not None:
                self.worst_gap = max(self.worst_gap, now - last)
            last = now
            if line.strip() == b"data: [DONE]":
                is_done = True
                continue
            event = json.loads(line[len(b"data: ") :])
            if "error" in event:
                self.wrong.append(f"a good stream: {event}")
            text += [choice.get("text", "") for choice in event.get("choices", [])]
        writer.close()
        answer = "".join(text)
        if not is_done:
            self.wrong.append(f"a good stream was cut off after {answer!r}")
        if self.answers.setdefault(at % len(QUESTIONS), answer) != answer:
            self.wrong.append(f"a good stream changed: {self.answers[at % len(QUESTIONS)]!r}, {answer!r}")
        self.streams += 1

    async def good(self, at: int) -> None:
        while not self.is_over:
            try:
                await self.stream(at)
            except Exception as error:
                self.wrong.append(f"a good client: {error!r}")
                await asyncio.sleep(0.5)

    async def hostile(self, number: int, seed: int) -> None:
        dice = random.Random(f"{seed} {number}")
        kinds = [*BODIES, *HEADS]
        # Each kind comes, and then whichever.
        kind = kinds[number] if number < len(kinds) else dice.choice(kinds)
        if kind in BODIES:
            path, body = BODIES[kind](dice)
            data = whole(path, body, "Connection: close\r\n")
        else:
            data = HEADS[kind](dice)
        behaviour = dice.choices(["waits", "leaves", "stops", "half"], [14, 3, 2, 1])[0]
        reader, writer = await self.connect()
        status = "?"
        try:
            async with asyncio.timeout(PATIENCE):
                if behaviour == "stops":
                    writer.write(data[: dice.randrange(len(data))])
                    await writer.drain()
                    await asyncio.sleep(dice.random() * 2)
                    status = "stopped"
                else:
                    writer.write(data)
                    await writer.drain()
                    if behaviour == "half":
                        writer.write_eof()
                    if behaviour == "leaves":
                        await asyncio.sleep(dice.random() * 2)
                        status = "left"
                    else:
                        head = await reader.readline()
                        found = re.match(rb"HTTP/1\.[01] (\d+)", head)
                        status = found.group(1).decode() if found else "closed"
                        await reader.read(1 << 16)
        except TimeoutError:
            status = "no answer"
        except OSError:
            status = "closed"
        finally:
            writer.transport.abort()
        self.statuses[kind][status] += 1
        if status == "500":
            self.wrong.append(f"{kind} (request {number}): 500")


def processes_of(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for one in found:
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as children:
                    found += map(int, children.read().split())
        except OSError:
            continue
    return found


def own_bytes(processes: list[int]) -> int:
    """Memory of these processes, each page that they share counted in parts."""
    total = 0
    for one in processes:
        try:
            with open(f"/proc/{one}/smaps_rollup") as lines:
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total


async def metric(attack: Attack, name: str) -> float:
    reader, writer = await attack.connect()
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def attack_server(process: subprocess.Popen, attack: Attack, options: argparse.Namespace) -> None:
    for at in range(NUM_GOOD):
        await attack.stream(at)
    attack.worst_gap = 0.0
    before = own_bytes(processes_of(process.pid))
    goods = [asyncio.create_task(attack.good(at)) for at in range(NUM_GOOD)]
    numbers = iter(range(options.requests))

    async def sender() -> None:
        for number in numbers:
            await attack.hostile(number, options.seed)

    began = time.monotonic()
    await asyncio.gather(*(sender() for _ in range(NUM_HOSTILE_AT_A_TIME)))
    took = time.monotonic() - began
    attack.is_over = True
    await asyncio.gather(*goods)
    until = time.monotonic() + PATIENCE
    while await metric(attack, "vllm:num_requests_running") or await metric(attack, "vllm:num_requests_waiting"):
        if time.monotonic() > until:
            attack.wrong.append("requests are left over")
            break
        await asyncio.sleep(0.2)
    growth = own_bytes(processes_of(process.pid)) - before
    while growth > options.max_growth << 20 and time.monotonic() < until:
        await asyncio.sleep(1)
        growth = own_bytes(processes_of(process.pid)) - before
    print(f"{options.requests} hostile requests of {len(attack.statuses)} kinds in {took:.0f} s")
    for kind, statuses in sorted(attack.statuses.items()):
        print(f"  {kind:32} {' '.join(f'{status}: {times}' for status, times in statuses.most_common())}")
    print(f"  good streams {attack.streams}, worst gap {attack.worst_gap:.2f} s")
    server, *others = processes_of(process.pid)
    print(f"  memory {before / 2**20:.0f} MiB, and {growth / 2**20:+.0f} MiB: ", end="")
    print(f"the server {own_bytes([server]) / 2**20:.0f} MiB, {len(others)} others {own_bytes(others) / 2**20:.0f} MiB")
    if growth > options.max_growth << 20:
        attack.wrong.append(f"memory grew by {growth} bytes")
    if attack.worst_gap > options.max_gap:
        attack.wrong.append(f"a good stream stood still for {attack.worst_gap:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    # On a busy machine a gap says more about the machine.
    parser.add_argument("--max-gap", type=float, default=float("inf"))
    parser.add_argument("--max-growth", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [options.binary, "serve", "demo", *SERVER_OPTIONS],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            found = re.search(r"listening on http://([\d.]+):(\d+)", process.stdout.readline())
            if not found:
                raise SystemExit(f"the server ended with {process.wait()} before it listened")
            attack = Attack(found.group(1), int(found.group(2)))
            asyncio.run(attack_server(process, attack, options))
            if process.poll() is not None:
                attack.wrong.append(f"the server ended by itself, with {process.poll()}")
            process.send_signal(signal.SIGTERM)
            if code := process.wait(timeout=60):
                attack.wrong.append(f"exit code {code}")
        finally:
            process.kill()
            log.seek(0)
            logged = log.read()
    if "panicked" in logged:
        attack.wrong.append(f"the log: {logged[-2000:]}")
    for wrong in attack.wrong[:40]:
        print(f"WRONG {wrong}")
    if attack.wrong:
        raise SystemExit(1)
    print("nobody was hurt")


if __name__ == "__main__":
    main()
