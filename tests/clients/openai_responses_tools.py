"""Tools and structured output at /v1/responses."""

from finding import PARAMETERS, Finding
from openai_chat import connect
from server import Server

LIMITS = {"model": "noise", "max_output_tokens": 256, "temperature": 1}
TOOL = {"type": "function", "name": "report_finding", "parameters": PARAMETERS, "strict": True}


def calls_a_tool_and_takes_its_result(server: Server) -> None:
    client = connect(server)
    history = [{"role": "user", "content": "Report."}]
    wish = dict(**LIMITS, tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    first = client.responses.create(**wish, input=history)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "report_finding"
    Finding.model_validate_json(call.arguments)
    # Whoever may not call is not told of the tools.
    wish |= {"tool_choice": "none", "max_output_tokens": 8}
    asked = client.responses.create(**wish, input=history)
    history += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "noted"},
    ]
    assert client.responses.create(**wish, input=history).usage.input_tokens > asked.usage.input_tokens


def streams_the_call_that_it_makes(server: Server) -> None:
    wish = dict(**LIMITS, input="Report.", tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    with connect(server).responses.stream(**wish) as stream:
        events = list(stream)
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert len(deltas) > 2 and "".join(deltas) == done.arguments
    Finding.model_validate_json(done.arguments)


def parses_structured_output(server: Server) -> None:
    answer = connect(server).responses.parse(**LIMITS, input="Report.", text_format=Finding)
    assert isinstance(answer.output_parsed, Finding)


CHECKS = [calls_a_tool_and_takes_its_result, streams_the_call_that_it_makes, parses_structured_output]
