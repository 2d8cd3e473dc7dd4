"""langchain-openai, as a chain's author uses it."""

import openai
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from messages import png
from server import Server


def connect(server: Server, **more) -> ChatOpenAI:
    wish = {"model": "noise", "max_tokens": 16, "temperature": 0, "timeout": 60, "max_retries": 0, **more}
    return ChatOpenAI(base_url=f"{server.address}/v1", api_key=server.key, **wish)


def answers_and_counts(server: Server) -> None:
    answer = connect(server).invoke([SystemMessage("Be brief."), HumanMessage("Hello")])
    assert answer.content and answer.response_metadata["finish_reason"] in ("length", "stop")
    assert answer.usage_metadata["input_tokens"] > 0
    assert 1 <= answer.usage_metadata["output_tokens"] <= 16


def streams_what_it_answers(server: Server) -> None:
    model = connect(server, stream_usage=True)
    whole = model.invoke("Stream this")
    streamed = AIMessageChunk("")
    for chunk in model.stream("Stream this"):
        streamed += chunk
    assert streamed.content == whole.content
    for count in ("input_tokens", "output_tokens", "total_tokens"):
        assert streamed.usage_metadata[count] == whole.usage_metadata[count]


def takes_images(server: Server) -> None:
    parts = [{"type": "text", "text": "What do you see?"}, {"type": "image_url", "image_url": {"url": png(32, 32)}}]
    answer = connect(server).invoke([HumanMessage(content=parts)])
    assert answer.usage_metadata["input_tokens"] > 256


def says_what_is_wrong(server: Server) -> None:
    try:
        connect(server, model="gpt-9").invoke("Hello")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
        return
    raise AssertionError("another model answered")


CHECKS = [answers_and_counts, streams_what_it_answers, takes_images, says_what_is_wrong]
