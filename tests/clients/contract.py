"""The running binary against its own /openapi.json, judged by schemathesis.

    python contract.py path/to/medgemma

The document itself is checked first. Then requests that it allows and requests that it forbids are
made up from it, always the same ones, and every answer must be one that it promises: a status, a
content type, headers and a body that it describes, and never a fault of the server.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from openapi_spec_validator import validate
from server import Server, serving

# Not `positive_data_acceptance`: that a token id exists, that two fields go together and that a
# image can be decoded is more than a schema can say. Not `ignored_auth`: it wants a 401 for each of
# many wrong keys, and the server slows down who sends many.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
]
EXAMPLES = 40
# What the step may take; it needs a fraction.
LIMIT_SECONDS = 280


def document(server: Server) -> dict:
    headers = {"Authorization": f"Bearer {server.key}"}
    request = urllib.request.Request(f"{server.address}/openapi.json", headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def needs_a_key(server: Server, described: dict) -> None:
    """Every operation that says so is closed to those who have none, or a wrong one."""
    for path, item in described["paths"].items():
        for method, operation in item.items():
            if operation.get("security") == []:
                continue
            for headers, statuses in [({}, [401]), ({"Authorization": "Bearer wrong"}, [401, 429])]:
                url = server.address + path.replace("{id}", "noise")
                request = urllib.request.Request(url, headers=headers, method=method.upper())
                try:
                    status = urllib.request.urlopen(request).status
                except urllib.error.HTTPError as error:
                    status = error.code
                assert status in statuses, f"{method} {path}: {status}"


def main() -> None:
    began = time.monotonic()
    # Short sequences, so that no made-up request generates for long.
    with serving(sys.argv[1], "--max-model-len", "128") as server:
        described = document(server)
        validate(described)
        operations = sum(len(item) for item in described["paths"].values())
        print(f"ok  a valid document of {operations} operations", flush=True)
        needs_a_key(server, described)
        print("ok  what needs a key is closed without it", flush=True)
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "--no-color", "run", f"{server.address}/openapi.json"),
            *("--header", f"Authorization: Bearer {server.key}"),
            *("--phases", "examples,coverage,fuzzing", "--mode", "all", "--max-examples", str(EXAMPLES)),
            # The same handlers again.
            *("--exclude-operation-id-regex", "WithoutV1$"),
            *("--checks", ",".join(CHECKS)),
            *("--seed", "1", "--generation-database", "none", "--no-shrink", "--continue-on-failure"),
            *("--request-timeout", "60"),
        ]
        hooks = Path(__file__).with_name("contract_hooks.py")
        subprocess.run(
            command, check=True, timeout=LIMIT_SECONDS, env={**os.environ, "SCHEMATHESIS_HOOKS": str(hooks)}
        )
    print(f"the contract held for {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
