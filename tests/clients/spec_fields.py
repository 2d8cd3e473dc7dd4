"""Every field that the SDKs can send is on the page src/api/docs/fields.md: done, or refused.

    python spec_fields.py
"""

import re
import typing
from pathlib import Path

from anthropic.types import message_count_tokens_params, message_create_params
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_completion_create_params
from openai.types.responses import response_create_params

PAGE = Path(__file__).parents[2] / "src/api/docs/fields.md"

PARAMS = {
    "POST /v1/chat/completions": chat_completion_create_params.CompletionCreateParamsStreaming,
    "POST /v1/completions": completion_create_params.CompletionCreateParamsStreaming,
    "POST /v1/responses": response_create_params.ResponseCreateParamsStreaming,
    "POST /v1/messages": message_create_params.MessageCreateParamsStreaming,
    "POST /v1/messages/count_tokens": message_count_tokens_params.MessageCountTokensParams,
}


def main() -> None:
    sections = dict(section.split("\n", 1) for section in PAGE.read_text().split("\n## ")[1:])
    for heading, params in PARAMS.items():
        listed = set(re.findall(r"^\| `(\w+)` \|", sections[heading], re.MULTILINE))
        sent = set(typing.get_type_hints(params))
        assert len(sent) > 5, f"{heading}: the SDK's type was not read"
        assert sent <= listed, f"{heading} says nothing of {sorted(sent - listed)}"
        print(f"ok  {heading}: {len(sent)} of the SDK's fields, {len(listed)} in all", flush=True)


if __name__ == "__main__":
    main()
