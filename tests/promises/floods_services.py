"""Services that attache itself asks, and that never stop answering: health checks, DNS, authorizers, keys, rate limits, collectors; a
copy of a request, a hedge and a retry beside an attempt that floods; and floods of attache's own ports."""

import asyncio
import socket
import struct
import time

from floods import ANSWERS, drains, reloaded
from floods_http2 import ACK, END_HEADERS, FIELD, HEADERS, PING, SETTINGS, CONTINUATION, frame, of_upstream
from hose import End, Hose, Others, Thread, all_over, connected, repeated
from world import Attache, Server, answering, call, free_port, get, holds, promise

CLOSE = "connection: close\r\n"
# What a service says for ever: by the name of its kind.
HTTP = {name: ANSWERS[name] for name in ("chunks", "small chunks", "a length", "100", "103, small")}
HTTP["a head"] = (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n")
HTTP["a head of 103"] = (b"HTTP/1.1 103 X\r\n", b"a: b\r\n")
HTTP["bytes"] = (b"", b"\xff")
OK = frame(HEADERS, END_HEADERS, 1, b"\x88")


def floods(first, block, heads=True):
    blocks = repeated(block)
    return Hose(lambda s, head: End(s, first, blocks), heads)


def http2_floods():
    return {name: (frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0) + first, block)
            for name, (first, block) in of_upstream().items() if block}


def all_services():
    """A server for each flood: its scheme, its name, itself."""
    return [("http", name, floods(*how)) for name, how in HTTP.items()] + \
           [("h2c", name, floods(*how, heads=False)) for name, how in http2_floods().items()]


async def closed(services):
    for _, _, service in services:
        await service.__aexit__()


@promise
async def a_health_check_that_is_flooded_fails_in_its_time(binary):
    """Where a head has come it has passed, whatever follows."""
    services = [one for one in all_services() if one[0] == "http"]
    passes = ("chunks", "small chunks", "a length")
    try:
        async with Server(answering()) as app:
            config = """
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
""" + "".join(
                f'  u{n}: {{ address: "http://127.0.0.1:$GOOD", health_check: {{ port: {service.port}, path: /, interval: 300ms, '
                f'timeout: 500ms, unhealthy: 1, healthy: 100 }} }}\n' for n, (_, _, service) in enumerate(services))
            async with Attache(binary, config, workers=1, GOOD=app.port) as attache:
                async with Others(attache["OTHER"]):
                    await asyncio.sleep(3)
                    for n, (_, name, service) in enumerate(services):
                        failed = await attache.metric(
                            f'attache_upstream_transitions_total{{upstream="u{n}",what="health",to="unhealthy"}}')
                        holds(failed >= 1 or name in passes, f"{name}: the endpoint is not unhealthy after 3 s", attache.said())
                        holds(len(service.open()) <= 1, f"{name}: {len(service.open())} probes run at once")
    finally:
        await closed(services)


@promise
async def an_authorizer_that_floods_is_no_answer(binary):
    """docs/authorization.md: 503 after `timeout`, and nothing reaches the app."""
    services, note = all_services(), []
    try:
        async with Server(answering(note=note)) as app, Server(answering()) as good:
            listeners = "".join(
                f'  l{n}: {{ bind: "127.0.0.1:$L{"X" * n}", authorization: {{ external: a{n} }}, to: app }}\n'
                for n in range(len(services)))
            authorizers = "".join(
                f'  a{n}: {{ service: s{n}, protocol: {"http" if scheme == "http" else "grpc"}, timeout: 500ms }}\n'
                for n, (scheme, _, _) in enumerate(services))
            upstreams = "".join(f'  s{n}: "{scheme}://127.0.0.1:{service.port}"\n' for n, (scheme, _, service) in enumerate(services))
            config = f"""
listeners:
  other: {{ bind: "127.0.0.1:$OTHER", to: good }}
{listeners}
authorizers:
{authorizers}
upstreams:
  app: {{ address: "http://127.0.0.1:$APP" }}
  good: {{ address: "http://127.0.0.1:$GOOD" }}
{upstreams}"""
            async with Attache(binary, config, workers=1, APP=app.port, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = {f"{scheme} {name}": End(connected(attache["L" + "X" * n]), get(more=CLOSE))
                            for n, (scheme, name, _) in enumerate(services)}
                    await all_over(ends, 0, 2.5, attache.said)
                # A length and chunks begin with a 200, which is the answer, whatever follows it.
                passed = {name: end.head[:40] for name, end in ends.items() if b" 503 " not in end.head[:20]}
                allowed = {"http chunks", "http small chunks", "http a length"}
                holds(set(passed) <= allowed and len(note) == len(passed), f"not refused: {passed}; the app saw {len(note)}")
    finally:
        await closed(services)


@promise
async def a_limit_service_that_floods_delays_no_request_for_longer_than_its_timeout(binary):
    services = [one for one in all_services() if one[0] == "h2c"]
    try:
        async with Server(answering()) as app:
            limit = "timeout: 300ms, domain: d, descriptors: [{ actions: [{ generic_key: { descriptor_value: v } }] }]"
            listeners = "".join(
                f'  l{n}: {{ bind: "127.0.0.1:$L{"X" * n}", routes: [{{ to: app, global_rate_limit: {{ service: s{n}, {limit} }} }}] }}\n'
                for n in range(len(services)))
            upstreams = "".join(f'  s{n}: "h2c://127.0.0.1:{service.port}"\n' for n, (_, _, service) in enumerate(services))
            config = f"""
listeners:
  other: {{ bind: "127.0.0.1:$OTHER", to: app }}
{listeners}
upstreams:
  app: {{ address: "http://127.0.0.1:$APP" }}
{upstreams}"""
            async with Attache(binary, config, workers=1, APP=app.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = {name: End(connected(attache["L" + "X" * n]), get(more=CLOSE)) for n, (_, name, _) in enumerate(services)}
                    await all_over(ends, 0, 2.5, attache.said)
                holds(all(b" 200 " in end.head[:20] for end in ends.values()), {name: end.head[:40] for name, end in ends.items()})
    finally:
        await closed(services)


@promise
async def keys_that_never_end_are_not_waited_for(binary):
    """docs/authorization.md: `keys.timeout`; tokens are refused, a start and a reload go on."""
    services = [one for one in all_services() if one[0] == "http"]
    try:
        async with Server(answering()) as app:
            issuers = "".join(
                f'  i{n}: {{ issuer: "https://i{n}", audiences: a, keys: {{ upstream: s{n}, path: /, timeout: 1s }} }}\n'
                for n in range(len(services)))
            upstreams = "".join(f'  s{n}: "http://127.0.0.1:{service.port}"\n' for n, (_, _, service) in enumerate(services))
            config = f"""
shutdown: {{ drain_timeout: 1s }}
listeners:
  other: {{ bind: "127.0.0.1:$OTHER", to: app }}
  out: {{ bind: "127.0.0.1:$OUT", authorization: {{ jwt: {{ issuers: [{", ".join(f"i{n}" for n in range(len(services)))}] }} }}, to: app }}
jwt:
{issuers}
upstreams:
  app: {{ address: "http://127.0.0.1:$APP" }}
{upstreams}"""
            began = time.monotonic()
            async with Attache(binary, config, workers=1, APP=app.port) as attache:
                holds(time.monotonic() - began < 7, f"ready after {time.monotonic() - began:.1f} s")
                async with Others(attache["OTHER"]):
                    token = "authorization: Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2kwIn0.AAAA\r\n"
                    got = await call(attache["OUT"], get(more=token + CLOSE))
                    holds(b" 200 " not in got[:20], got[:100])
                    attache.change("timeout: 1s", "timeout: 900ms")
                    await reloaded(attache)
                    await asyncio.sleep(3)
                    kept = {name: len(service.open()) for _, name, service in services if len(service.open()) > 1}
                    holds(not kept, "more than one question runs:", kept)
                await drains(attache, {})
    finally:
        await closed(services)


class Dns:
    """Answers each question with answers to others, as fast as it can, by UDP; by TCP with messages that never end."""

    def __init__(self):
        self.udp, self.port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), free_port()
        self.udp.bind(("127.0.0.1", self.port))
        self.server = socket.create_server(("127.0.0.1", self.port))
        self.truncates, self.asked, self.stop = False, 0, False
        Thread(self.serve)
        Thread(self.streams)

    def serve(self):
        while not self.stop:
            question, client = self.udp.recvfrom(4096)
            self.asked += 1
            if self.truncates:
                self.udp.sendto(question[:2] + b"\x82\x00" + question[4:], client)
            else:
                Thread(lambda question=question, client=client: self.flood(question, client))

    def flood(self, question, client):
        # The right question with a wrong id, then with a name of somebody else.
        other = bytes([question[0] ^ 0xFF]) + question[1:2] + b"\x81\x80" + question[4:]
        until = time.monotonic() + 3
        while not self.stop and time.monotonic() < until:
            for _ in range(100):
                self.udp.sendto(other, client)

    def streams(self):
        while True:
            s, _ = self.server.accept()
            End(s, b"", repeated(struct.pack("!H", 200) + b"\0\0\x81\x80" + bytes(196)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop = True
        self.udp.close()
        self.server.close()


@promise
async def a_dns_server_that_floods_is_not_listened_to_for_longer_than_its_timeout(binary):
    config = """
shutdown: { drain_timeout: 1s }
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
  out: { bind: "127.0.0.1:$OUT", to: named }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
  named: { address: "http://flooded.test:80", timeout: 4s }
dns: { servers: ["127.0.0.1:$DNS"], timeout: 500ms, attempts: 2 }
"""
    for truncates in (False, True):
        with Dns() as dns:
            dns.truncates = truncates
            async with Server(answering()) as good:
                began = time.monotonic()
                async with Attache(binary, config, workers=1, DNS=dns.port, GOOD=good.port) as attache:
                    took = time.monotonic() - began
                    holds(took < 7, f"ready after {took:.1f} s")
                    async with Others(attache["OTHER"]):
                        began = time.monotonic()
                        got = await call(attache["OUT"], get(more=CLOSE))
                        holds(re_503(got) and time.monotonic() - began < 5, f"{got[:100]} after {time.monotonic() - began:.1f} s")
                        await asyncio.sleep(1)
                    holds(dns.asked < 60, f"asked {dns.asked} times")
                    await drains(attache, {})


def re_503(got):
    return b" 503 " in got[:20] or b" 504 " in got[:20] or b" 502 " in got[:20]


@promise
async def an_attempt_that_floods_is_left_for_another(binary):
    """`per_try_timeout`, and the delay of a hedge: the other endpoint answers."""
    async with floods(*ANSWERS["103, small"]) as app, Server(answering("other")) as other, Server(answering()) as good:
        retries = {
            "retry": "retry: { attempts: 1, per_try_timeout: 500ms, on: [reset], budget: 100% }",
            "hedge": "retry: { attempts: 1, budget: 100%, hedge: { after: 300ms } }",
        }
        for name, retry in retries.items():
            config = f"""
listeners:
  other: {{ bind: "127.0.0.1:$OTHER", to: good }}
  out: {{ bind: "127.0.0.1:$OUT", to: app }}
upstreams:
  good: {{ address: "http://127.0.0.1:$GOOD" }}
  app:
    address: ["http://127.0.0.1:$APP", "http://127.0.0.1:$ELSE"]
    balance: round-robin
    outlier_ejection: off
    timeout: 5s
    {retry}
"""
            ports = {"APP": app.port, "ELSE": other.port, "GOOD": good.port}
            async with Attache(binary, config, workers=1, **ports) as attache:
                async with Others(attache["OTHER"]):
                    for n in range(3):
                        ends = {f"{name} {n}, {k}": End(connected(attache["OUT"]), get(more=CLOSE)) for k in range(6)}
                        await all_over(ends, 0, 2.5, attache.said)
                        wrong = {name: end.last for name, end in ends.items() if not end.last.endswith(b"other")}
                        holds(not wrong, wrong)


@promise
async def a_copy_of_a_request_whose_answer_never_ends_ends_at_its_timeout(binary):
    config = """
listeners:
  out: { bind: "127.0.0.1:$OUT", routes: [{ to: good, mirror: { copy: 100% } }] }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
  copy: { address: "http://127.0.0.1:$COPY", timeout: 1s }
"""
    for kind in ("chunks", "small chunks", "103, small", "a length"):
        async with floods(*ANSWERS[kind]) as copy, Server(answering()) as good:
            async with Attache(binary, config, workers=1, COPY=copy.port, GOOD=good.port) as attache:
                async with Others(attache["OUT"]) as others:
                    await asyncio.sleep(1.5)
                    others.task.cancel()
                    await asyncio.sleep(1.8)
                    holds(not copy.open(), f"{kind}: {len(copy.open())} copies of {others.count} run on behind their timeout")


@promise
async def a_flood_of_the_ports_of_attache_itself_delays_neither_probes_nor_calls_nor_the_end(binary):
    """The ports of metrics and of the admin API: requests without an end, heads and bodies without an end."""
    config = """
shutdown: { drain_timeout: 1s }
admin: { bind: "127.0.0.1:$ADMIN" }
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
"""
    asks = {
        "metrics": ("METRICS", get("/metrics")), "healthz": ("METRICS", get("/healthz")), "stats": ("ADMIN", get("/stats.json")),
        "head": ("ADMIN", b"a: b\r\n"), "line": ("METRICS", b"x"), "frames": ("METRICS", frame(PING, 0, 0, bytes(8))),
        "continuation": ("ADMIN", frame(CONTINUATION, 0, 1, FIELD)),
    }
    firsts = {"head": b"GET / HTTP/1.1\r\n"}
    body = b"POST /reload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    async with Server(answering()) as good:
        attache = Attache(binary, config, workers=1, GOOD=good.port)
        attache.write(attache.text.replace("admin: off\n", ""))
        async with attache:
            async with Others(attache["OTHER"]), Others(attache["METRICS"], get("/readyz", CLOSE)):
                ends = {
                    f"{name}, {n}, {reads}": End(connected(attache[to]), firsts.get(name, b""), repeated(block), reads=reads)
                    for name, (to, block) in asks.items() for n in range(2) for reads in (True, False)
                }
                ends["body"] = End(connected(attache["ADMIN"]), body, repeated(b"1\r\nx\r\n"))
                await asyncio.sleep(2.5)
            holds(attache.memory() < 200 * 1024, f"{attache.memory()} KiB")
            await drains(attache, {name: end for name, end in ends.items() if name.endswith("True")})


@promise
async def a_collector_that_floods_delays_no_end(binary):
    config = """
tracing: { otlp: "$SCHEME://127.0.0.1:$COLLECTOR", timeout: 1s }
shutdown: { drain_timeout: 1s }
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
"""
    for kind in ("small chunks", "103, small", "a head"):
        async with floods(*HTTP[kind]) as collector, Server(answering()) as good:
            text = config.replace("$SCHEME", "http")
            async with Attache(binary, text, workers=1, COLLECTOR=collector.port, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    await asyncio.sleep(2)
                await drains(attache, {})
