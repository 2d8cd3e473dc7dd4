"""The running binary, judged by the clients that people use.

    python run.py path/to/medgemma openai_chat metrics ...

Starts `medgemma serve` on a free port, runs the checks of the named files beside this one as users'
programs would, and stops it. The model's words are noise, so what is checked is everything around
them.
"""

import importlib
import sys
import time

from server import serving


def main() -> None:
    binary, *names = sys.argv[1:]
    began = time.monotonic()
    passed = 0
    with serving(binary) as server:
        for name in names:
            for check in importlib.import_module(name).CHECKS:
                check(server)
                passed += 1
                print(f"ok  {name}: {check.__name__.replace('_', ' ')}", flush=True)
    assert passed, "no checks were named"
    print(f"{passed} checks in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
