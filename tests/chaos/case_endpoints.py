"""One endpoint of four that misbehaves, and endpoints that come and go."""

import asyncio
import contextlib

from endpoints import Endpoint
from world import HOSTS, case

BUDGET = ("retry-budget-exhausted",)
NAME = "app.chaos"


@contextlib.contextmanager
def misbehaving(world, mode):
    endpoint = world.endpoints[HOSTS[0]]
    endpoint.mode = mode
    yield
    endpoint.mode = "fine"


@case("slow-endpoint", reasons=("idle-timeout", "request-timeout", "per-try-timeout", *BUDGET))
async def slow(world):
    """Its answers take 2 s, in eight pieces."""
    await world.under_load(misbehaving(world, "slow"))


@case("garbage-endpoint", fast=True, needs=("upstream-protocol-error",), reasons=BUDGET)
async def garbage(world):
    """It answers what is no HTTP."""
    await world.under_load(misbehaving(world, "garbage"))


@case("half-closing-endpoint", reasons=("upstream-reset", "upstream-protocol-error", "upstream-closed-mid-body", *BUDGET))
async def half_close(world):
    """Its FIN comes in the head of an answer, and its connection stays open."""
    await world.under_load(misbehaving(world, "half-close"))
    await world.must_count("attache_upstream_ejections_total")


@case("cutting-endpoint", needs=("upstream-closed-mid-body",), reasons=BUDGET)
async def cut(world):
    """Its answers end in the middle of the body."""
    await world.under_load(misbehaving(world, "cut"))


@case("resetting-endpoint", fast=True, needs=("upstream-reset", "upstream-closed-mid-body"), reasons=BUDGET)
async def resetting(world):
    """It resets connections in the middle of the body."""
    await world.under_load(misbehaving(world, "reset"))


@case("stalling-endpoint", needs=("idle-timeout",), reasons=("upstream-closed-mid-body", "request-timeout", *BUDGET))
async def stall(world):
    """It is silent in the middle of the body."""
    await world.under_load(misbehaving(world, "stall"))


@case("dead-endpoint", reasons=("connect-refused", "upstream-reset", "upstream-closed-mid-body", *BUDGET))
async def dead(world):
    """It is killed with what runs on it, refuses connections, and comes back."""
    end = world.load()
    await asyncio.sleep(1)
    await world.endpoints[HOSTS[0]].stop()
    await asyncio.sleep(world.seconds)
    world.endpoints[HOSTS[0]] = await Endpoint(HOSTS[0]).start()
    await asyncio.sleep(1)
    await end()
    await world.must_count("attache_upstream_connection_failures_total", reason="connect-refused")


@case(
    "rolling-restart", app=[NAME], names={NAME: HOSTS},
    reasons=("upstream-reset", "upstream-closed-mid-body", "connect-refused", *BUDGET),
)
async def rolling_restart(world):
    """Each endpoint is replaced; DNS says it a second after the old one is gone."""
    end = world.load()
    now = list(HOSTS)
    for number, host in enumerate(HOSTS):
        fresh = f"127.0.1.{11 + number}"
        world.endpoints[fresh] = await Endpoint(fresh).start()
        await world.endpoints.pop(host).stop(grace=0.5)
        await asyncio.sleep(1)
        now[now.index(host)] = fresh
        world.dns.table = {NAME: list(now)}
        await asyncio.sleep(1)
    await asyncio.sleep(1.5)
    await end()
    await world.must_count("attache_upstream_connection_failures_total", reason="connect-refused")
    if unused := [host for host in now if not world.endpoints[host].calls]:
        world.differences.append(f"no call went to {unused}")
