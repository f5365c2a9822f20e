"""Clients that leave at every phase."""

import asyncio

import clients
import http2
from world import case


async def leaving(world, module):
    """Some of each phase and both ways to leave, while others call."""
    for endpoint in world.endpoints.values():
        endpoint.release.clear()
    end = world.load(count=4)
    for _ in range(max(2, int(world.seconds * 2))):
        await asyncio.gather(*(module.leave(world.tally, phase, hard) for phase in module.PHASES for hard in (False, True)))
        await asyncio.sleep(0.1)
    await end()


@case("clients-leave-http1", fast=True, reasons=("client-closed", "bad-request"), needs=("client-closed",))
async def http1_clients_leave(world):
    """Before, in and behind the head, in the body, in the answer, in a tunnel; by FIN and by RST."""
    await leaving(world, clients)


@case("clients-leave-http2", reasons=("client-closed", "bad-request", "http2-flood"), needs=("client-closed",))
async def http2_clients_leave(world):
    """The same by frames, and by RST_STREAM and GOAWAY."""
    await leaving(world, http2)
