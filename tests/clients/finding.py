"""What the checks of tools and of structured output ask for.

Bounded, and without room for more keys, so that noise which keeps to it ends.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """Report one finding."""

    model_config = ConfigDict(extra="forbid")

    organ: Literal["heart", "lungs", "liver"]
    severity: int = Field(ge=0, le=9)
    urgent: bool


# The same by hand, as a tool.
PARAMETERS = {
    "type": "object",
    "properties": {
        "organ": {"type": "string", "enum": ["heart", "lungs", "liver"]},
        "severity": {"type": "integer", "minimum": 0, "maximum": 9},
        "urgent": {"type": "boolean"},
    },
    "required": ["organ", "severity", "urgent"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "report_finding", "description": "Report one finding.", "parameters": PARAMETERS},
}
OTHER_TOOL = {
    "type": "function",
    "function": {
        "name": "count_images",
        "description": "How many images there are.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
