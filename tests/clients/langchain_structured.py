"""langchain-openai: structured output and bound tools."""

from finding import TOOL, Finding
from langchain_chat import connect
from langchain_core.messages import HumanMessage, ToolMessage
from server import Server


def gives_structured_output(server: Server) -> None:
    model = connect(server, max_tokens=256, temperature=1)
    for method in ("json_schema", "function_calling"):
        assert isinstance(model.with_structured_output(Finding, method=method).invoke("Report."), Finding), method


def calls_bound_tools(server: Server) -> None:
    model = connect(server, max_tokens=256, temperature=1)
    question = HumanMessage("Report.")
    call = model.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False).invoke([question])
    (asked,) = call.tool_calls
    assert asked["name"] == "report_finding"
    Finding.model_validate(asked["args"])
    answer = connect(server).invoke([question, call, ToolMessage("noted", tool_call_id=asked["id"])])
    assert answer.usage_metadata["input_tokens"] > call.usage_metadata["input_tokens"] - 512


CHECKS = [gives_structured_output, calls_bound_tools]
