"""litellm: tools, schemas and Anthropic's endpoint."""

import re

from finding import TOOL, Finding
from litellm_chat import complete
from server import Server


# It takes `additionalProperties: false` out of a tool's parameters, so noise may go on behind what is required.
REQUIRED = re.compile(r'\{"organ": ?"(heart|lungs|liver)", ?"severity": ?[0-9], ?"urgent": ?(true|false)')


def calls_tools(server: Server) -> None:
    wish = dict(tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=256, temperature=1)
    (call,) = complete(server, **wish).choices[0].message.tool_calls
    assert call.function.name == "report_finding" and REQUIRED.match(call.function.arguments), call
    pieces = []
    for chunk in complete(server, **wish, stream=True):
        pieces += [delta.function.arguments or "" for delta in chunk.choices[0].delta.tool_calls or []]
    assert len(pieces) > 2 and REQUIRED.match("".join(pieces)), pieces


def gives_structured_output(server: Server) -> None:
    answer = complete(server, response_format=Finding, max_tokens=256, temperature=1)
    Finding.model_validate_json(answer.choices[0].message.content)


CHECKS = [calls_tools, gives_structured_output]
