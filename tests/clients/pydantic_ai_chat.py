"""pydantic-ai's agents over its OpenAI model."""

import asyncio

from messages import png
from pydantic_ai import Agent, BinaryContent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from server import Server


def agent(server: Server, model: str = "noise", **more) -> Agent:
    provider = OpenAIProvider(base_url=f"{server.address}/v1", api_key=server.key)
    settings = {"max_tokens": 16, "temperature": 0, "timeout": 60}
    return Agent(OpenAIChatModel(model, provider=provider), model_settings=settings, **more)


def answers_and_counts(server: Server) -> None:
    answer = agent(server, instructions="Be brief.").run_sync("Hello")
    assert answer.output
    assert answer.usage.input_tokens > 0 and 1 <= answer.usage.output_tokens <= 16


def remembers_the_conversation(server: Server) -> None:
    talker = agent(server)
    first = talker.run_sync("Hello")
    second = talker.run_sync("And then?", message_history=first.all_messages())
    assert second.usage.input_tokens > first.usage.input_tokens


def streams_what_it_answers(server: Server) -> None:
    async def stream() -> str:
        async with agent(server).run_stream("Stream this") as answer:
            return await answer.get_output()

    assert asyncio.run(stream()) == agent(server).run_sync("Stream this").output


def takes_images(server: Server) -> None:
    image = BinaryContent.from_data_uri(png(32, 32))
    assert agent(server).run_sync(["What do you see?", image]).usage.input_tokens > 256


def says_what_is_wrong(server: Server) -> None:
    try:
        agent(server, "gpt-9").run_sync("Hello")
    except ModelHTTPError as error:
        assert error.status_code == 404 and error.body["code"] == "model_not_found", error.body
        return
    raise AssertionError("another model answered")


CHECKS = [
    answers_and_counts,
    remembers_the_conversation,
    streams_what_it_answers,
    takes_images,
    says_what_is_wrong,
]
