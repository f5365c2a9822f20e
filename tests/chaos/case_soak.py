"""All protocols at once, for as long as is wanted."""

import asyncio
import time

import clients
import http2
from world import case

MINUTES = 0.2
MEBI = 1024


# Long timeouts: endpoints and clients are one process, which may wait long for a busy machine.
@case("soak", timeout="12s", silence="10s", reasons=("client-closed",))
async def soak(world):
    """HTTP/1 kept alive and closed, HTTP/2, WebSocket, CONNECT, TCP, and clients that leave; memory and rate each minute."""
    kinds = (clients.http1, http2.http2, clients.websocket, clients.tunnel, clients.tcp)
    ends = [world.load(*kinds, count=3), world.load(clients.http1, count=3, keep=1)]
    end, minute, calls, minutes = time.monotonic() + MINUTES * 60, time.monotonic(), 0, 0
    while time.monotonic() < end:
        await asyncio.sleep(min(1, max(0.01, end - time.monotonic())))
        await clients.leave(world.tally, "in the answer", hard=True)
        await http2.leave(world.tally, "in the answer", hard=False)
        now = time.monotonic()
        if now >= minute + 60 or now >= end:
            rate, calls = (world.tally.calls() - calls) / (now - minute), world.tally.calls()
            minute, minutes = now, minutes + 1
            memory, files = world.program.memory() / MEBI, world.program.descriptors()
            print(f"    minute {minutes}: {rate:.0f} calls/s, {memory:.1f} MiB, {files} descriptors", flush=True)
    for stop in ends:
        await stop()
