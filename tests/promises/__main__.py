"""Attacks on what the pages promise: `python3 tests/promises ATTACHE [WORD...]`.

Each attack starts its own program with its own config. Words choose attacks by their names.
"""

import asyncio
import os
import sys
import time
import traceback

import floods  # noqa: F401  (registers its attacks)
import floods_http2  # noqa: F401
import floods_services  # noqa: F401
import lifecycle  # noqa: F401
import messages  # noqa: F401
import pages  # noqa: F401
from world import PROMISES, Broken


async def main(binary, words):
    chosen = [one for one in PROMISES if not words or any(word in one.__name__ for word in words)]
    broken = 0
    for attack in chosen:
        began = time.monotonic()
        try:
            await asyncio.wait_for(attack(binary), 60)
            result = "holds"
        except Broken as found:
            result = f"BROKEN: {found}"
        except Exception:
            result = f"BROKEN: the attack itself failed:\n{traceback.format_exc()}"
        broken += result != "holds"
        print(f"{attack.__name__} ({time.monotonic() - began:.1f} s): {result}", flush=True)
    print(f"{len(chosen) - broken} of {len(chosen)} promises hold")
    return 1 if broken else 0


sys.exit(asyncio.run(main(os.path.abspath(sys.argv[1]), sys.argv[2:])))
