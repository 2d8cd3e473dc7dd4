"""The pages in Chromium; the checks are in node/browser.mjs."""

import shutil
import subprocess
import sys
from pathlib import Path

from messages import png
from server import Server, serving


def serves_pages_to_a_browser(server: Server) -> None:
    chromium = shutil.which("chromium")
    assert chromium, "there is no chromium: install it, such as with apt-get install chromium"
    script = Path(__file__).with_name("node") / "browser.mjs"
    with serving(server.binary, "--thinking", "on-request") as thinker:
        command = ["node", script, chromium, thinker.address, thinker.key, png(120, 80), sys.executable]
        subprocess.run(command, check=True, timeout=420)


CHECKS = [serves_pages_to_a_browser]
