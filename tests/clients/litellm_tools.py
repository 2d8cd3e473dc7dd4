"""litellm: tools, schemas and Anthropic's endpoint."""

from finding import TOOL, Finding
from litellm_chat import complete
from server import Server


def calls_tools(server: Server) -> None:
    wish = dict(tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=256, temperature=1)
    (call,) = complete(server, **wish).choices[0].message.tool_calls
    Finding.model_validate_json(call.function.arguments)
    pieces = []
    for chunk in complete(server, **wish, stream=True):
        pieces += [delta.function.arguments or "" for delta in chunk.choices[0].delta.tool_calls or []]
    Finding.model_validate_json("".join(pieces))


def gives_structured_output(server: Server) -> None:
    answer = complete(server, response_format=Finding, max_tokens=256, temperature=1)
    Finding.model_validate_json(answer.choices[0].message.content)


CHECKS = [calls_tools, gives_structured_output]
