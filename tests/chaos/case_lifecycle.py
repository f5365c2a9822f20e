"""What an operator does, in the midst of load."""

import asyncio
import json
import signal

import clients
import http2
from world import case

KINDS = (clients.http1, clients.websocket, clients.tunnel, clients.tcp, http2.http2)


@case("reload")
async def reload(world):
    """Another timeout each half second, by SIGHUP: nobody sees it."""
    end = world.load(*KINDS, count=3)
    rounds = max(4, int(world.seconds * 2))
    for number in range(rounds):
        world.program.write(f"{3000 + number + 1}ms")
        world.program.signal(signal.SIGHUP)
        await asyncio.sleep(0.5)
    await end()
    if (seen := await world.counted("attache_config_reloads_total", outcome="ok")) < rounds:
        world.differences.append(f"{seen:g} of {rounds} configs were loaded")


@case("drain", access_log="{ to: stdout, format: json }")
async def drain(world):
    """SIGTERM: each call that was begun has its answer, and the access log has each."""
    world.is_settling = False
    end = world.load(count=16, pause=0.005)
    await asyncio.sleep(world.seconds)
    world.program.signal(signal.SIGTERM)
    code = await asyncio.wait_for(world.program.process.wait(), 15)
    await end()
    tally = world.tally
    if tally.cut or tally.unanswered or tally.late:
        world.differences.append(f"{tally.cut} calls were cut, {tally.unanswered} had no answer, {tally.late} no end")
    if failed := {key: n for key, n in tally.answers.items() if key != ("2xx", "")}:
        world.differences.append(f"failed: {failed}")
    lines = [json.loads(line) for line in world.program.log.read_text().splitlines() if line.startswith("{")]
    logged = sum("status" in line for line in lines) - world.before.total("attache_requests_total")
    if logged != sum(tally.answers.values()):
        world.differences.append(f"clients had {sum(tally.answers.values())} answers, the access log has {logged:g}")
    if world.program.errors():
        world.differences.append(f"in the log: {world.program.errors()[:3]}")
    if code != 0:
        world.differences.append(f"exit code {code}")
