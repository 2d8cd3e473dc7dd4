"""Tools through the openai client for JavaScript; the checks are in node/tools.mjs."""

import json
import subprocess
from pathlib import Path

from finding import PARAMETERS
from server import Server


def serves_tools_to_the_client_for_javascript(server: Server) -> None:
    script = Path(__file__).with_name("node") / "tools.mjs"
    subprocess.run(["node", script, server.address, server.key, json.dumps(PARAMETERS)], check=True, timeout=120)


CHECKS = [serves_tools_to_the_client_for_javascript]
