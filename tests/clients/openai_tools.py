"""Tools and structured output through the openai client.

What is required is kept by a grammar, so that even noise makes valid calls and documents.
"""

import json
import re

import openai
from finding import OTHER_TOOL, TOOL, Finding
from messages import ask
from openai_chat import connect
from server import Server

LIMITS = {"model": "noise", "max_tokens": 256, "temperature": 1, "seed": 5}


def calls_a_tool_that_it_must_call(server: Server) -> None:
    client = connect(server)
    for choice in ("required", {"type": "function", "function": {"name": "report_finding"}}):
        answer = client.chat.completions.create(
            **LIMITS, messages=ask("Report."), tools=[TOOL], tool_choice=choice, parallel_tool_calls=False
        )
        (call,) = answer.choices[0].message.tool_calls
        assert call.type == "function" and call.id and call.function.name == "report_finding"
        Finding.model_validate_json(call.function.arguments)
        assert answer.choices[0].finish_reason in ("tool_calls", "stop")


def streams_the_call_that_it_makes(server: Server) -> None:
    client = connect(server)
    wish = dict(**LIMITS, messages=ask("Report."), tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    (whole,) = client.chat.completions.create(**wish).choices[0].message.tool_calls
    deltas = []
    for chunk in client.chat.completions.create(**wish, stream=True):
        deltas += chunk.choices[0].delta.tool_calls or []
    assert len(deltas) > 2, "the arguments came at once"
    assert {delta.index for delta in deltas} == {0}
    assert deltas[0].id and deltas[0].function.name == "report_finding"
    assert all(delta.id is None for delta in deltas[1:])
    assert "".join(delta.function.arguments or "" for delta in deltas) == whole.function.arguments

    with client.chat.completions.stream(**wish) as stream:
        gathered = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.arguments for call in gathered] == [whole.function.arguments]


def takes_results_back(server: Server) -> None:
    client = connect(server)
    tools = [TOOL, OTHER_TOOL]
    messages = ask("Report.")
    first = client.chat.completions.create(**LIMITS, messages=messages, tools=tools, tool_choice="required")
    # Whoever may not call is not told of the tools.
    silent = dict(**{**LIMITS, "max_tokens": 8}, tools=tools, tool_choice="none")
    asked = client.chat.completions.create(**silent, messages=messages)
    messages.append(first.choices[0].message)
    for call in first.choices[0].message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "noted"})
    second = client.chat.completions.create(**silent, messages=messages)
    assert second.usage.prompt_tokens > asked.usage.prompt_tokens + len(first.choices[0].message.tool_calls)
    assert second.choices[0].message.tool_calls is None


def parses_structured_output(server: Server) -> None:
    client = connect(server)
    wish = dict(**LIMITS, messages=ask("Report."), response_format=Finding)
    answer = client.chat.completions.parse(**wish)
    assert isinstance(answer.choices[0].message.parsed, Finding)
    with client.chat.completions.stream(**wish) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed


def keeps_to_vllms_constraints(server: Server) -> None:
    def text(**structured) -> str:
        answer = connect(server).chat.completions.create(
            **LIMITS, messages=ask("Say it."), extra_body={"structured_outputs": structured}
        )
        return answer.choices[0].message.content

    assert text(choice=["benign", "malignant"]) in ("benign", "malignant")
    assert re.fullmatch(r"[A-C]-[0-9]{3}", text(regex="[A-C]-[0-9]{3}"))
    Finding.model_validate_json(text(json=Finding.model_json_schema()))
    assert text(grammar='start: "left" | "right"') in ("left", "right")
    assert text(grammar='root ::= "left" | "right"') in ("left", "right")


def begins_an_object_if_asked_for_one(server: Server) -> None:
    answer = connect(server).chat.completions.create(
        **LIMITS, messages=ask("JSON."), response_format={"type": "json_object"}
    )
    choice = answer.choices[0]
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    assert choice.message.content.lstrip().startswith("{")


def refuses_schemas_that_it_cannot_keep(server: Server) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "strnig"}}}
    wish = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    try:
        connect(server).chat.completions.create(**LIMITS, messages=ask("JSON."), response_format=wish)
    except openai.BadRequestError as error:
        assert error.param.startswith("response_format"), error.param
        return
    raise AssertionError("a broken schema was taken")


CHECKS = [
    calls_a_tool_that_it_must_call,
    streams_the_call_that_it_makes,
    takes_results_back,
    parses_structured_output,
    keeps_to_vllms_constraints,
    begins_an_object_if_asked_for_one,
    refuses_schemas_that_it_cannot_keep,
]
