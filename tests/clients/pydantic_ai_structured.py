"""pydantic-ai: typed output by a tool and by a schema, and tools of the agent's own."""

from finding import Finding
from pydantic_ai import NativeOutput, ToolOutput
from pydantic_ai_chat import agent
from server import Server

LONG = {"max_tokens": 256, "temperature": 1}


def gives_typed_output(server: Server) -> None:
    for output in (ToolOutput(Finding), NativeOutput(Finding)):
        answer = agent(server, output_type=output).run_sync("Report.", model_settings=LONG)
        assert isinstance(answer.output, Finding)


CHECKS = [gives_typed_output]
