"""The stage of a case: endpoints, attache in front of them, clients, and the look at all of it afterwards."""

import asyncio
import dataclasses
import os
import time

import alone
import checks
import clients
from endpoints import Endpoint, Relay, echo_server
from names import Names
from program import DNS, MAX_REQUESTS, WEB, Attache
from tally import Tally

HOSTS = [f"127.0.1.{number}" for number in range(1, 5)]
SETTLED = 15.0
# For a case that shares the machine with others for long: no time that is waited for depends on how fast it is.
PATIENT = {"timeout": "60s", "silence": "40s", "connect": "20s", "header": "30s"}


@dataclasses.dataclass(frozen=True)
class Case:
    """`reasons` may be seen, one of `needs` must be; `expected_errors` are parts of the log's lines."""

    name: str
    run: object
    fast: bool
    setup: dict
    reasons: frozenset
    needs: frozenset
    expected_errors: tuple


CASES = []


def case(name, *, fast=False, reasons=(), needs=(), expected_errors=(), **setup):
    """Registers a case; `setup` goes to the `World`."""

    def register(run):
        known = frozenset(reasons) | frozenset(needs)
        CASES.append(Case(name, run, fast, setup, known, frozenset(needs), tuple(expected_errors)))
        return run

    return register


class World:
    def __init__(self, binary, seconds, *, app=HOSTS, relayed=False, names=None, disk=None, blocked=False, few=False, patient=False, **program):
        self.seconds, self.tally, self.few = seconds, Tally(), few
        # The time for a call that must succeed, for all permits to be held, and for rest.
        self.recovery, self.holding, self.settled = checks.RECOVERY, 0.6, SETTLED
        if patient:
            self.recovery, self.holding, self.settled = 60.0, 20.0, 120.0
            clients.TIMEOUT = 90
            program |= PATIENT
        if blocked:
            # Nobody reads from it.
            self.unread, program["stdout"] = os.pipe()
        if disk:
            os.makedirs(disk, exist_ok=True)
            alone.small_disk(disk, "64k")
        self.program = Attache(binary, app=app, **program)
        self.relayed, self.names, self.endpoints, self.relays = relayed, names, {}, []
        self.differences, self.notes, self.is_settling = [], [], True

    async def start(self):
        await self.start_endpoints()
        if self.names:
            self.dns = await Names(ttl=1).start(DNS)
            self.dns.table = dict(self.names)
        self.echo = await echo_server("127.0.1.1", 8081)
        await self.program.start()
        warm, end = Tally(), time.monotonic() + 1
        await asyncio.gather(*(clients.http1(warm, lambda: time.monotonic() < end, 0.01) for _ in range(16)))
        await asyncio.sleep(1.5)
        self.before = await self.program.page()
        self.memory, self.descriptors = self.program.memory(), self.program.descriptors()

    async def start_endpoints(self):
        for host in HOSTS:
            port = 8079 if self.relayed else 8080
            self.endpoints[host] = await Endpoint(host, port).start()
            if self.relayed:
                self.relays.append(await Relay(host, 8080, (host, port)).start())

    def load(self, *kinds, count=16, **more):
        """Begins to call; returns what ends it and waits for the calls that run."""
        going = [True]
        kinds = kinds or (clients.http1,)
        tasks = [
            asyncio.create_task(kind(self.tally, lambda: going[0], **more)) for kind in kinds for _ in range(count)
        ]

        async def end():
            going[0] = False
            await asyncio.gather(*tasks)

        return end

    async def under_load(self, fault, *kinds, **more):
        """A second without the fault, the fault for the case's seconds, a second without it."""
        end = self.load(*kinds, **more)
        await asyncio.sleep(1)
        with fault:
            await asyncio.sleep(self.seconds)
        await asyncio.sleep(1)
        await end()

    async def counted(self, name, **labels):
        """How much a counter rose in this case."""
        return (await self.program.page()).total(name, **labels) - self.before.total(name, **labels)

    async def must_count(self, name, **labels):
        """A counter by which the fault is seen."""
        if not await self.counted(name, **labels):
            self.differences.append(f"{name}{labels or ''} did not rise: the fault was not seen")

    async def recovered(self):
        """Seconds until a call succeeds; None where none does."""
        begin = time.monotonic()
        while time.monotonic() < begin + self.recovery:
            if await self.one_call(b"/10"):
                return time.monotonic() - begin
            await asyncio.sleep(0.1)
        return None

    async def one_call(self, path):
        try:
            reader, writer = await clients.connect(WEB)
        except OSError:
            return False
        good = False
        async with clients.counted(self.tally):
            writer.write(b"GET %s HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n" % path)
            status, _ = await clients.read_answer(reader, self.tally)
            good = status == 200
        writer.close()
        return good

    async def permits(self, wanted):
        """How many calls can run at once: each is held until all are there, for at most half of an attempt's time."""
        for endpoint in self.endpoints.values():
            endpoint.release.clear()
        held = [asyncio.create_task(self.one_call(b"/hold")) for _ in range(wanted)]
        end = time.monotonic() + self.holding
        while time.monotonic() < end and sum(e.waiting for e in self.endpoints.values()) < wanted:
            await asyncio.sleep(0.01)
        for endpoint in self.endpoints.values():
            endpoint.release.set()
        return sum(await asyncio.gather(*held))

    async def differs(self, case):
        """Waits until nothing differs, for a while; then says what does."""
        recovery = await self.recovered()
        # Endpoints that were given up come back with the calls.
        await asyncio.gather(*(self.one_call(b"/10") for _ in range(32)))
        await asyncio.sleep(1.5)
        # With few descriptors there is no room for all of them.
        expected = 0 if self.few else MAX_REQUESTS
        permits = await self.permits(expected)
        end, found = time.monotonic() + self.settled, ["nothing was looked at"]
        while found and time.monotonic() < end:
            await asyncio.sleep(0.25)
            after = await self.program.page()
            found = checks.differences(checks.Observed(
                self.before, after, self.tally, (self.memory, self.program.memory()),
                (self.descriptors, self.program.descriptors()), recovery, permits, expected, self.program.errors(),
                case.reasons, case.needs, case.expected_errors, self.recovery,
            ))
        return found


async def play(case, binary, seconds):
    """Runs a case; returns its line and what differs."""
    begin = time.monotonic()
    world = World(binary, seconds, **case.setup)
    found = []
    try:
        await world.start()
        await case.run(world)
        if world.is_settling:
            found = await world.differs(case)
        found += world.differences
    except (OSError, RuntimeError) as error:
        found.append(f"{type(error).__name__}: {error}")
    finally:
        if world.program.process and (code := await world.program.end()) != 0:
            found.append(f"exit code {code} after SIGTERM")
    failed = " ".join(f"{name}={count}" for name, count in sorted(world.tally.failed().items())) or "-"
    verdict = "FAILED" if found else "ok"
    line = f"{case.name:<24} {time.monotonic() - begin:5.0f} s {world.tally.calls():7} calls  {failed:<50} {verdict}"
    return "\n".join([line, *(f"    {note}" for note in world.notes)]), found
