"""All protocols at once, for as long as is wanted."""

import asyncio
import random
import time

import clients
import http2
from world import case

MINUTES = 0.2
MEBI = 1024
# How long each client waits between its calls: some hundred calls a second, so that neither endpoints nor clients, which are one
# process, ever wait for each other on a busy machine. A soak looks for what grows, not for what is slow.
PAUSE = 0.1


@case("soak", patient=True, reasons=("client-closed", "bad-request", "http2-flood"))
async def soak(world):
    """HTTP/1 kept alive and closed, HTTP/2, WebSocket, CONNECT, TCP, and clients that leave at every phase."""
    kinds = (clients.http1, clients.websocket, clients.tunnel, clients.tcp)
    ends = [
        world.load(*kinds, count=2, pause=PAUSE),
        world.load(clients.http1, count=2, keep=1, pause=PAUSE),
        world.load(http2.http2, count=2, pause=4 * PAUSE),
    ]
    end, minute, calls, minutes = time.monotonic() + MINUTES * 60, time.monotonic(), 0, 0
    while time.monotonic() < end:
        await asyncio.sleep(min(1, max(0.01, end - time.monotonic())))
        await asyncio.gather(*(
            module.leave(world.tally, random.choice(list(module.PHASES)), hard=random.random() < 0.5)
            for module in (clients, http2)
        ))
        now = time.monotonic()
        if now >= minute + 60 or now >= end:
            rate, calls = (world.tally.calls() - calls) / (now - minute), world.tally.calls()
            minute, minutes = now, minutes + 1
            print(f"    {await row(world, minutes, rate)}", flush=True)
    for stop in ends:
        await stop()


async def row(world, minutes, rate):
    """A minute of the curve. What is going on is about the clients' number, whatever the minute."""
    page = await world.program.page()
    going_on = " ".join(
        f"{name.removeprefix('attache_')}={page.total(name):g}"
        for name in sorted({name for name, _ in page.gauges()})
        if any(part in name for part in ("active", "in_flight", "pending", "pool_connections", "tunnels"))
    )
    memory, files = world.program.memory() / MEBI, world.program.descriptors()
    return f"minute {minutes}: {rate:.0f} calls/s, {memory:.1f} MiB, {files} descriptors, {going_on}"
