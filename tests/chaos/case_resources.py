"""What the system withholds: disk, readers, memory, descriptors, time of the processor."""

import asyncio
import os
import pathlib
import resource
import signal
import tempfile
import time

from world import case

DISK = tempfile.gettempdir() + "/attache-chaos-disk"
MEMORY = 64 << 20


@case(
    "full-disk", fast=True, disk=DISK, access_log=f"{{ to: {{ file: {DISK}/access.log }} }}",
    expected_errors=("access log", "access_log"),
)
async def full_disk(world):
    """The disk of the access log is full, and has space again."""
    end = world.load()
    await asyncio.sleep(world.seconds)
    await end()
    await world.must_count("attache_access_log_dropped_total", cause="write-failed")
    for file in pathlib.Path(DISK).iterdir():
        os.truncate(file, 0)
    await world.one_call(b"/10")
    await asyncio.sleep(1)
    if not any(file.stat().st_size for file in pathlib.Path(DISK).iterdir()):
        world.differences.append("there is space again, and no line is written")


@case("blocked-stdout", fast=True, access_log="stdout", blocked=True, expected_errors=("access log", "access_log"))
async def blocked_stdout(world):
    """Nobody reads the pipe that the access log goes to. The lines are long, so that the queue is full soon."""

    async def call(_tally, going):
        while going():
            await world.one_call(b"/" + b"x" * 6000)

    end, until = world.load(call), time.monotonic() + 60
    while time.monotonic() < until and not await world.counted("attache_access_log_dropped_total", cause="queue-full"):
        await asyncio.sleep(0.5)
    await asyncio.sleep(world.seconds)
    await end()
    await world.must_count("attache_access_log_dropped_total", cause="queue-full")


@case("little-memory", limits=[(resource.RLIMIT_DATA, MEMORY)], reasons=("overloaded",))
async def little_memory(world):
    """64 MiB of data (RLIMIT_DATA), many clients with large answers."""
    end = world.load(count=64)
    await asyncio.sleep(world.seconds)
    await end()


@case(
    "few-descriptors", few=True, limits=[(resource.RLIMIT_NOFILE, 96)],
    reasons=("overloaded", "connect-failed"), expected_errors=("ulimit -n", "os error 24"),
)
async def few_descriptors(world):
    """96 descriptors, 150 clients. A connection to an endpoint may find none left: `connect-failed` names the system's error."""
    end = world.load(count=150)
    await asyncio.sleep(world.seconds)
    await end()
    await asyncio.sleep(1)


@case("throttled-cpu", reasons=("per-try-timeout", "request-timeout", "connect-timeout", "retry-budget-exhausted"))
async def throttled_cpu(world):
    """The program runs 20 ms of each 100 ms."""
    end = world.load()
    for _ in range(int(world.seconds * 10)):
        world.program.signal(signal.SIGSTOP)
        await asyncio.sleep(0.08)
        world.program.signal(signal.SIGCONT)
        await asyncio.sleep(0.02)
    await end()
