"""Tools through Anthropic's client."""

from anthropic_chat import connect
from finding import PARAMETERS, Finding
from messages import ask
from server import Server

TOOL = {"name": "report_finding", "description": "Report one finding.", "input_schema": PARAMETERS}
LIMITS = {"model": "noise", "max_tokens": 256, "tools": [TOOL]}


def calls_a_tool_and_takes_its_result(server: Server) -> None:
    client = connect(server)
    for choice in ({"type": "any"}, {"type": "tool", "name": "report_finding"}):
        choice["disable_parallel_tool_use"] = True
        first = client.messages.create(**LIMITS, messages=ask("Report."), tool_choice=choice)
        assert first.stop_reason == "tool_use"
        (call,) = [block for block in first.content if block.type == "tool_use"]
        Finding.model_validate(call.input)
    history = [
        *ask("Report."),
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "noted"}]},
    ]
    # Whoever may not call is not told of the tools.
    wish = {**LIMITS, "max_tokens": 8, "tool_choice": {"type": "none"}}
    asked = client.messages.create(**wish, messages=history[:1])
    assert client.messages.create(**wish, messages=history).usage.input_tokens > asked.usage.input_tokens


def streams_the_call_that_it_makes(server: Server) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    with connect(server).messages.stream(**LIMITS, messages=ask("Report."), tool_choice=choice) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        (call,) = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert len(pieces) > 2
    Finding.model_validate_json("".join(pieces))
    Finding.model_validate(call.input)


CHECKS = [calls_a_tool_and_takes_its_result, streams_the_call_that_it_makes]
