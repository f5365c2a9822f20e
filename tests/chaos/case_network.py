"""Faults of the network between attache and its endpoints."""

import asyncio
import contextlib

from alone import both_ways, packets
from world import HOSTS, case

TIMES = ("connect-timeout", "per-try-timeout", "request-timeout", "idle-timeout", "retry-budget-exhausted")


@case("loss", reasons=TIMES)
async def loss(world):
    """5 % of all packets to and from the endpoints are lost."""
    rules = [rule for host in HOSTS for rule in both_ways(host, "numgen random mod 100 < 5")]
    await world.under_load(packets(*rules))


@case("delay", relayed=True, reasons=TIMES)
async def delay(world):
    """A round trip to the endpoints takes 200 ms more."""

    @contextlib.contextmanager
    def delayed():
        for relay in world.relays:
            relay.delay = 0.1
        yield
        for relay in world.relays:
            relay.delay = 0

    await world.under_load(delayed())
    family = "attache_request_time_to_head_seconds"
    # Not their mean: how many quick calls there are before and after the fault depends on the machine.
    slow = await world.counted(f"{family}_count") - await world.counted(f"{family}_bucket", le="0.1")
    if slow < 50:
        world.differences.append(f"{slow:g} calls took more than 100 ms: the fault was not there")


@case("partition", fast=True, reasons=(*TIMES, "no-healthy-endpoint"))
async def partition(world):
    """Half of the endpoints can't be reached, and come back."""
    await world.under_load(packets(*(rule for host in HOSTS[:2] for rule in both_ways(host))))


@case("black-hole", reasons=("connect-timeout", "retry-budget-exhausted"))
async def black_hole(world):
    """One endpoint takes no connection: each SYN is dropped."""
    with packets(f"ip daddr {HOSTS[0]} tcp flags & (syn | ack) == syn"):
        end = world.load(count=32, keep=1)
        await asyncio.sleep(world.seconds)
    await end()
    await world.must_count("attache_upstream_connection_failures_total", reason="connect-timeout")


@case("black-hole-mid-response", reasons=(*TIMES, "upstream-closed-mid-body", "no-healthy-endpoint"), needs=("idle-timeout",))
async def black_hole_mid_response(world):
    """The network is gone in the middle of answers."""
    for endpoint in world.endpoints.values():
        endpoint.mode = "stall"
    end = world.load()
    await asyncio.sleep(0.5)
    with packets(*(rule for host in HOSTS for rule in both_ways(host))):
        await asyncio.sleep(world.seconds)
        for endpoint in world.endpoints.values():
            endpoint.mode = "fine"
    await asyncio.sleep(1)
    await end()
