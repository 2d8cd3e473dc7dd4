"""Chats and completions through the openai client."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import openai
from messages import CROPPED, ask, ask_about, check_seen, png
from server import Server, serving


def connect(server: Server, **more) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": f"{server.address}/v1", "api_key": server.key, "max_retries": 0, "timeout": 60, **more})


def lists_and_names_its_model(server: Server) -> None:
    client = connect(server)
    (model,) = client.models.list().data
    assert model.id == "noise"
    assert client.models.retrieve("noise").max_model_len > 256


def answers_and_counts(server: Server) -> None:
    client = connect(server)
    answer = client.chat.completions.create(model="noise", messages=ask("Hello"), max_tokens=8, temperature=0)
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and isinstance(choice.message.content, str)
    assert choice.finish_reason in ("length", "stop")
    assert 1 <= answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def streams_what_it_answers(server: Server) -> None:
    client = connect(server)
    wish = dict(model="noise", messages=ask("Stream this"), max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
    whole = client.chat.completions.create(**wish)
    chunks = list(client.chat.completions.create(**wish, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 24


def takes_images(server: Server) -> None:
    client = connect(server)
    plain = client.chat.completions.create(model="noise", messages=ask("What do you see?"), max_tokens=1)
    for count in (1, 2):
        seen = client.chat.completions.create(
            model="noise", messages=ask_about(*[png(64 + n, 48) for n in range(count)]), max_tokens=4
        )
        assert seen.usage.prompt_tokens >= plain.usage.prompt_tokens + 256 * count


def says_what_was_seen(server: Server) -> None:
    client = connect(server)
    image, kwargs = png(96, 32), dict(model="noise", max_tokens=4, extra_body=CROPPED)
    data = {"type": "file", "file": {"file_data": image.replace("image/png", "application/dicom"), "filename": "a.dcm"}}
    for messages in (ask_about(image), [{"role": "user", "content": [{"type": "text", "text": "Seen?"}, data]}]):
        answer = client.chat.completions.create(messages=messages, **kwargs)
        check_seen(answer.model_extra["inputs"])
        assert answer.usage.prompt_tokens_details.images == 4
        chunks = list(client.chat.completions.create(messages=messages, stream=True, **kwargs))
        check_seen(chunks[-1].model_extra["inputs"])
        assert chunks[-1].choices[0].finish_reason
    with client.chat.completions.stream(messages=ask_about(image), **kwargs) as stream:
        stream.until_done()
    two = client.chat.completions.with_raw_response.create(messages=ask_about(image, png(64, 64)), **kwargs)
    assert two.headers["x-medgemma-warning"] == "no_text_after_images"


def gives_logprobs(server: Server) -> None:
    client = connect(server)
    answer = client.chat.completions.create(
        model="noise", messages=ask("How sure?"), max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0


def repeats_a_seed_and_varies_without(server: Server) -> None:
    client = connect(server)
    def draw(**wish) -> list[str]:
        answer = client.chat.completions.create(
            model="noise", messages=ask("Draw"), max_tokens=16, temperature=1, n=2, **wish
        )
        return [choice.message.content for choice in answer.choices]

    first = draw(seed=7)
    assert first == draw(seed=7)
    assert first[0] != first[1]
    assert draw() != draw()


def completes_text(server: Server) -> None:
    client = connect(server)
    answer = client.completions.create(model="noise", prompt=["The heart", "The lungs"], max_tokens=4, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]


def refuses_in_the_clients_own_classes(server: Server) -> None:
    client = connect(server)
    def refused(kind: type[openai.APIStatusError], **wish) -> openai.APIStatusError:
        try:
            client.chat.completions.create(**{"model": "noise", "messages": ask("Hi"), "max_tokens": 4, **wish})
        except kind as error:
            assert error.body["message"], "an error without words"
            return error
        raise AssertionError(f"{wish} was taken")

    assert refused(openai.NotFoundError, model="gpt-9").code == "model_not_found"
    assert refused(openai.BadRequestError, temperature=-1).param == "temperature"
    assert refused(openai.BadRequestError, web_search_options={}).param == "web_search_options"
    assert refused(openai.BadRequestError, messages=ask("word " * 20000)).code == "context_length_exceeded"
    broken = refused(openai.BadRequestError, messages=ask_about("data:image/png;base64,AAAA"))
    assert broken.param == "messages[0].content[1]"
    refused(openai.BadRequestError, messages=ask_about("https://example.org/a.png"))
    try:
        client.with_options(api_key="wrong").models.list()
    except openai.AuthenticationError:
        return
    raise AssertionError("a wrong key was taken")


def gives_up_in_time(server: Server) -> None:
    client = connect(server)
    try:
        client.chat.completions.create(
            model="noise",
            messages=ask("Take your time"),
            max_tokens=4000,
            extra_body={"ignore_eos": True, "timeout": 0.01},
        )
    except openai.InternalServerError as error:
        assert error.status_code == 504 and error.code == "deadline_exceeded"
        return
    raise AssertionError("4000 tokens in 10 ms")


def serves_many_and_survives_those_who_leave(server: Server) -> None:
    client = connect(server)
    def leave(_: int) -> None:
        stream = client.chat.completions.create(
            model="noise", messages=ask("Talk"), max_tokens=512, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()

    def stay(_: int) -> str:
        answer = client.chat.completions.create(model="noise", messages=ask("Stay"), max_tokens=16, temperature=0)
        return answer.choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        leaving = pool.map(leave, range(8))
        staying = set(pool.map(stay, range(8)))
        list(leaving)
    assert len(staying) == 1


def retries_what_is_worth_another_try(server: Server) -> None:
    # Room for two: whoever comes third is told to come back.
    with serving(server.binary, "--max-num-seqs", "1", "--max-queued-requests", "1") as small:
        long = dict(model="noise", messages=ask("Long"), max_tokens=3000, n=2, extra_body={"ignore_eos": True})
        occupying = connect(small).chat.completions.create(**long, stream=True)
        next(iter(occupying))
        try:
            connect(small).chat.completions.create(model="noise", messages=ask("Now"), max_tokens=1)
            raise AssertionError("a full server took a request")
        except openai.RateLimitError as error:
            assert error.status_code == 429 and int(error.response.headers["retry-after"]) >= 1
            assert error.body["message"]
        waits = []

        def count(request) -> None:
            waits.append(request.headers["x-stainless-retry-count"])
            if len(waits) == 2:
                # The first try has failed: now there is room.
                occupying.close()

        client = connect(small, max_retries=20)
        client._client.event_hooks["request"].append(count)
        answer = client.chat.completions.create(model="noise", messages=ask("Now"), max_tokens=1)
        assert answer.usage.completion_tokens == 1
        assert waits[:2] == ["0", "1"], waits


def waits_for_its_key_to_have_room(server: Server) -> None:
    with serving(server.binary, "--max-requests-per-key", "2", "--max-tokens-per-minute-per-key", "1000000") as limited:
        long = dict(model="noise", messages=ask("Long"), max_tokens=3000, n=2, extra_body={"ignore_eos": True})
        occupying = connect(limited).chat.completions.create(**long, stream=True)
        next(iter(occupying))
        tries = []

        def count(request) -> None:
            tries.append(request.headers["x-stainless-retry-count"])
            if len(tries) == 2:
                occupying.close()

        client = connect(limited, max_retries=20)
        client._client.event_hooks["request"].append(count)
        raw = client.chat.completions.with_raw_response.create(model="noise", messages=ask("Now"), max_tokens=1)
        assert raw.parse().usage.completion_tokens == 1
        assert tries[:2] == ["0", "1"], tries
        left = {name: raw.headers[f"x-ratelimit-{name}"] for name in ("remaining-requests", "limit-tokens")}
        assert left == {"remaining-requests": "1", "limit-tokens": "1000000"}, left
        assert 0 < int(raw.headers["x-ratelimit-remaining-tokens"]) < 1_000_000


def times_out_as_the_client_says(server: Server) -> None:
    client = connect(server, timeout=0.05)
    try:
        client.chat.completions.create(
            model="noise", messages=ask("Take your time"), max_tokens=4000, extra_body={"ignore_eos": True}
        )
    except openai.APITimeoutError:
        pass
    else:
        raise AssertionError("4000 tokens in 50 ms")
    # Nothing is left of it: the next request is answered.
    assert connect(server).chat.completions.create(model="noise", messages=ask("Hi"), max_tokens=1).choices


def serves_the_asynchronous_client(server: Server) -> None:
    async def talk() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key=server.key, max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="noise", messages=ask("Hello"), max_tokens=8, stream=True, extra_body={"ignore_eos": True}
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(talk())


CHECKS = [
    lists_and_names_its_model,
    answers_and_counts,
    streams_what_it_answers,
    takes_images,
    says_what_was_seen,
    gives_logprobs,
    repeats_a_seed_and_varies_without,
    completes_text,
    refuses_in_the_clients_own_classes,
    gives_up_in_time,
    serves_many_and_survives_those_who_leave,
    retries_what_is_worth_another_try,
    waits_for_its_key_to_have_room,
    times_out_as_the_client_says,
    serves_the_asynchronous_client,
]
