"""What schemathesis must know of the server; it loads this file by its name in SCHEMATHESIS_HOOKS."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """Lets requests reach the engine: a made-up model is a 404, and the right answer to one that allows
    itself a nanosecond is a 504."""
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str):
        body["model"] = "noise"
    if isinstance(body.get("timeout"), int | float) and 0 < body["timeout"] < 60:
        body["timeout"] = 60
