"""Attacks on what the pages promise: `python3 tests/promises ATTACHE [WORD...]`.

Each attack starts its own program with its own config. Words choose attacks by their names.

Most attacks measure times. A broken promise in a process that itself stood still proves nothing: such an attack runs again.
"""

import asyncio
import os
import sys
import threading
import time
import traceback

import floods  # noqa: F401  (registers its attacks)
import floods_edges  # noqa: F401
import floods_http2  # noqa: F401
import floods_services  # noqa: F401
import lifecycle  # noqa: F401
import messages  # noqa: F401
import pages  # noqa: F401
from world import PROMISES, Broken


ATTEMPTS = 3
# Times are judged with at least this much room.
STOOD_STILL = 0.4


class Pulse:
    """How long this process stood still: its largest pause between two beats, which are 10 ms apart."""

    def __enter__(self):
        self.longest, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)
        self.thread.start()
        return self

    def beat(self):
        last = time.monotonic()
        while not self.over.wait(0.01):
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


async def held(attack, binary):
    """What became of it."""
    try:
        async with asyncio.timeout(60):
            await attack(binary)
        return "holds"
    except Broken as found:
        return f"BROKEN: {found}"
    except Exception:
        return f"BROKEN: the attack itself failed:\n{traceback.format_exc()}"


async def main(binary, words):
    chosen = [one for one in PROMISES if not words or any(word in one.__name__ for word in words)]
    broken = 0
    for attack in chosen:
        for attempt in range(1, ATTEMPTS + 1):
            began = time.monotonic()
            with Pulse() as pulse:
                result = await held(attack, binary)
            judged = result == "holds" or pulse.longest < STOOD_STILL or attempt == ATTEMPTS
            again = "" if judged else f"\nThis process stood still for {pulse.longest:.2f} s meanwhile: it is tried again."
            print(f"{attack.__name__} ({time.monotonic() - began:.1f} s): {result}{again}", flush=True)
            if judged:
                break
        broken += result != "holds"
    print(f"{len(chosen) - broken} of {len(chosen)} promises hold")
    return 1 if broken else 0


sys.exit(asyncio.run(main(os.path.abspath(sys.argv[1]), sys.argv[2:])))
