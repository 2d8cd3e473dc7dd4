"""The openai client for JavaScript; its checks are in node/run.mjs."""

import subprocess
from pathlib import Path

from messages import png
from server import Server


def serves_the_client_for_javascript(server: Server) -> None:
    script = Path(__file__).with_name("node") / "run.mjs"
    subprocess.run(["node", script, server.address, server.key, png(32, 32)], check=True, timeout=120)


CHECKS = [serves_the_client_for_javascript]
