"""Anthropic's client at /v1/messages."""

import anthropic
from messages import CROPPED, ask, check_seen, png
from server import Server


def connect(server: Server, **more) -> anthropic.Anthropic:
    return anthropic.Anthropic(**{"base_url": server.address, "api_key": server.key, "max_retries": 0, "timeout": 60, **more})


# This client no longer names the field; servers still take it.
GREEDY = {"temperature": 0}


def look(image: str) -> list[dict]:
    media_type, data = image.removeprefix("data:").split(";base64,")
    source = {"type": "base64", "media_type": media_type, "data": data}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What do you see?"}]
    return [{"role": "user", "content": parts}]


def answers_and_counts(server: Server) -> None:
    client = connect(server)
    wish = dict(model="noise", system="Be brief.", messages=ask("Hello"))
    answer = client.messages.create(**wish, max_tokens=8, extra_body=GREEDY)
    assert answer.role == "assistant" and answer.stop_reason in ("max_tokens", "end_turn")
    assert all(block.type == "text" for block in answer.content)
    assert 1 <= answer.usage.output_tokens <= 8
    assert client.messages.count_tokens(**wish).input_tokens == answer.usage.input_tokens


def streams_what_it_answers(server: Server) -> None:
    client = connect(server)
    wish = dict(model="noise", messages=ask("Stream this"), max_tokens=24, extra_body=GREEDY)
    whole = client.messages.create(**wish)
    with client.messages.stream(**wish) as stream:
        text = "".join(stream.text_stream)
        gathered = stream.get_final_message()
    assert text == "".join(block.text for block in whole.content)
    assert text == "".join(block.text for block in gathered.content)
    assert gathered.stop_reason == whole.stop_reason
    assert gathered.usage.output_tokens == whole.usage.output_tokens


def takes_images(server: Server) -> None:
    answer = connect(server).messages.create(model="noise", messages=look(png(32, 32)), max_tokens=2)
    assert answer.usage.input_tokens > 256


def says_what_was_seen(server: Server) -> None:
    client = connect(server)
    pictures = look(png(96, 32))
    documents = [{"role": "user", "content": [part | ({"type": "document"} if "source" in part else {}) for part in pictures[0]["content"]]}]
    for messages in (pictures, documents):
        wish = dict(model="noise", messages=messages, max_tokens=4, extra_body=CROPPED)
        answer = client.messages.create(**wish)
        check_seen(answer.model_extra["inputs"])
        assert answer.usage.model_extra["input_tokens_details"]["images"] == 4
        with client.messages.stream(**wish) as stream:
            ends = [event for event in stream if event.type == "message_delta"]
            assert stream.get_final_message().usage.output_tokens == answer.usage.output_tokens
        check_seen(ends[-1].model_extra["inputs"])


def refuses_in_the_clients_own_classes(server: Server) -> None:
    def refused(kind: type[anthropic.APIStatusError], **wish) -> str:
        try:
            connect(server).messages.create(**{"model": "noise", "messages": ask("Hi"), "max_tokens": 2, **wish})
        except kind as error:
            assert error.body["type"] == "error" and error.request_id
            return error.body["error"]["message"]
        raise AssertionError(f"{wish} was taken")

    assert "gpt-9" in refused(anthropic.NotFoundError, model="gpt-9")
    assert "temperature" in refused(anthropic.BadRequestError, extra_body={"temperature": -1})
    assert "container" in refused(anthropic.BadRequestError, extra_body={"container": "c"})
    try:
        connect(server, api_key="wrong").messages.create(model="noise", messages=ask("Hi"), max_tokens=2)
    except anthropic.AuthenticationError:
        return
    raise AssertionError("a wrong key was taken")


def times_out_and_lets_go(server: Server) -> None:
    wish = dict(model="noise", messages=ask("Take your time"), max_tokens=4000, extra_body={"ignore_eos": True})
    with connect(server).messages.stream(**wish) as stream:
        next(iter(stream))
    try:
        connect(server, timeout=0.005).messages.create(**wish)
    except anthropic.APITimeoutError:
        pass
    else:
        raise AssertionError("4000 tokens in 5 ms")
    assert connect(server).messages.create(model="noise", messages=ask("Hi"), max_tokens=1).content is not None


CHECKS = [
    answers_and_counts,
    streams_what_it_answers,
    takes_images,
    says_what_was_seen,
    refuses_in_the_clients_own_classes,
    times_out_and_lets_go,
]
