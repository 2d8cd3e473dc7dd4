"""The binary under test: starts `medgemma serve` on a free port and stops it."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY = "a-key-for-this-run"
NOISE = str(Path(__file__).parents[1] / "golden" / "models" / "noise")
"""A model whose words are noise. It is never at a loss for more of them, nor for any that are forced on it."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    binary: str
    address: str
    key: str = KEY


@contextlib.contextmanager
def serving(binary: str, *flags: str) -> Iterator[Server]:
    """A server, once it says that it can answer. It must end well in the end."""
    process = subprocess.Popen(
        [binary, "serve", NOISE, "--port", "0", "--api-key", KEY, "--log-level", "warn", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(binary, address(process))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)
    assert code == 0, f"the server ended with {code}"


def address(process: subprocess.Popen) -> str:
    for line in process.stdout:
        if found := re.search(r"listening on (http://\S+)", line):
            return found.group(1)
    raise SystemExit(f"the server ended with {process.wait()} before it listened")
