"""instructor, by tools and by schemas."""

import instructor
from finding import Finding
from messages import ask
from openai_chat import connect
from server import Server


def gives_what_the_model_class_says(server: Server) -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(connect(server), mode=mode)
        finding = client.chat.completions.create(
            model="noise",
            messages=ask("Report."),
            response_model=Finding,
            max_tokens=256,
            temperature=1,
            max_retries=0,
        )
        assert isinstance(finding, Finding), mode


CHECKS = [gives_what_the_model_class_says]
