"""litellm, which sends OpenAI's requests to what it calls an OpenAI-compatible host."""

import os

# Its table of prices comes with it; there is nothing to fetch.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402
from messages import ask, ask_about, png
from server import Server

litellm.suppress_debug_info = True


def complete(server: Server, **wish):
    wish = {"messages": ask("Hello"), "max_tokens": 16, "temperature": 0, "timeout": 60, "num_retries": 0, **wish}
    model = wish.pop("model", "noise")
    return litellm.completion(model=f"hosted_vllm/{model}", api_base=f"{server.address}/v1", api_key=server.key, **wish)


def answers_and_counts(server: Server) -> None:
    answer = complete(server)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert 1 <= answer.usage.completion_tokens <= 16


def streams_what_it_answers(server: Server) -> None:
    whole = complete(server)
    chunks = list(complete(server, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def takes_images(server: Server) -> None:
    answer = complete(server, messages=ask_about(png(32, 32)))
    assert answer.usage.prompt_tokens > 256


def refuses_in_its_own_classes(server: Server) -> None:
    for kind, wish in (
        (litellm.NotFoundError, {"model": "gpt-9"}),
        (litellm.BadRequestError, {"temperature": -1}),
        (litellm.ContextWindowExceededError, {"messages": ask("word " * 20000)}),
    ):
        try:
            complete(server, **wish)
        except kind:
            continue
        raise AssertionError(f"{wish} was taken")


CHECKS = [answers_and_counts, streams_what_it_answers, takes_images, refuses_in_its_own_classes]
