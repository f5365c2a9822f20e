"""Peers that never stop sending, and are read as fast: each time limit ends them, and the worker serves others meanwhile.

tokio lets a task read and write only so often before it must yield, and beyond that nothing is ready for it, timers included. So a
timer behind a socket that is always ready is never seen, unless somebody took care of that.
"""

import asyncio
import subprocess
import sys
import time

from hose import End, Hose, Others, all_over, connected, repeated
from world import Attache, Server, answering, get, holds, promise

CONFIG = """
shutdown: { drain_timeout: 1s }
reload: { drain_timeout: 1s }
listeners:
  out: { bind: "127.0.0.1:$OUT", to: app }
  raw: { bind: "127.0.0.1:$RAW", protocol: tcp, to: raw }
  copied: { bind: "127.0.0.1:$COPIED", protocol: tcp, tcp_splice: false, to: raw }
  tunnels:
    bind: "127.0.0.1:$TUNNELS"
    routes: [{ match: { methods: CONNECT }, to: any }]
    to: app
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  app: { address: "http://127.0.0.1:$APP", timeout: 2s }
  raw: tcp://127.0.0.1:$APP
  any: { address: authority }
  good: { address: "http://127.0.0.1:$GOOD" }
"""
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
# Messages without an end: how each begins, and what repeats after it. Each is valid, or not yet invalid.
ANSWERS = {
    "chunks": (CHUNKED, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
    "small chunks": (CHUNKED, b"1\r\nx\r\n"),
    "a length": (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999999\r\n\r\n", b"x"),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "what compresses well": (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
                             b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </" + b"x" * 1000 + b">\r\n\r\n"),
    "103, small": (b"", b"HTTP/1.1 103 X\r\n\r\n"),
}
# Limits of size end these, and sooner.
ENDLESS = {
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n"),
    "extensions": (CHUNKED, b"1;a=" + b"b" * 100 + b"\r\nx\r\n"),
    "an extension": (CHUNKED + b"1;a=", b"b"),
    "zeros of a size": (CHUNKED, b"0"),
    "a head": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    "a line": (b"HTTP/1.1 200 ", b"x"),
    "a head of 103": (b"HTTP/1.1 103 X\r\n", b"a: b\r\n"),
}
UPLOADS = {
    "chunks": (b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
    "small chunks": (b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a length": (b"content-length: 999999999999999\r\n\r\n", b"x"),
}
ZIPPED = "compression: { codings: [gzip] }"


def answers(table):
    """A server that floods by what stands in the path."""
    blocks = {name: (first, repeated(block)) for name, (first, block) in table.items()}

    def each(s, head):
        name = head.split()[1].decode()[1:].replace("_", " ")
        return End(s, *blocks[name])

    return Hose(each)


def asked(port, name, version="1.1", more=""):
    return End(connected(port), get("/" + name.replace(" ", "_"), "connection: close\r\n" + more, version))


@promise
async def an_answer_that_never_ends_is_cut_at_its_timeout(binary):
    """docs/resilience.md: `timeout` bounds the whole answer, however fast it comes and is read."""
    config = CONFIG.replace('"127.0.0.1:$OUT", to', f'"127.0.0.1:$OUT", {ZIPPED}, to')
    async with answers(ANSWERS) as app, Server(answering()) as good:
        async with Attache(binary, config, workers=1, APP=app.port, GOOD=good.port) as attache:
            async with Others(attache["OTHER"]):
                ends = {
                    f"{name} to HTTP/{version}": asked(attache["OUT"], name, version, "accept-encoding: gzip\r\n")
                    for name in ANSWERS for version in ("1.1", "1.0")
                }
                await all_over(ends, 1.9, 6, attache.said)
            await asyncio.sleep(0.2)
            holds(not app.open(), "calls to the upstream run on behind their deadline")


@promise
async def a_part_of_an_answer_that_never_ends_is_bounded_by_its_size(binary):
    """docs/http.md: heads, trailers and chunk extensions have limits."""
    async with answers(ENDLESS) as app, Server(answering()) as good:
        async with Attache(binary, CONFIG, workers=1, APP=app.port, GOOD=good.port) as attache:
            before = attache.memory()
            async with Others(attache["OTHER"]):
                ends = {f"{name}, {n}": asked(attache["OUT"], name) for name in ENDLESS for n in range(3)}
                await all_over(ends, 0, 4, attache.said)
            holds(attache.memory() - before < 16 * 1024, f"{attache.memory() - before} KiB more")


def ticking(s, head):
    """Reads all, answers at once, and says a word every tenth of a second."""
    first, words = CHUNKED + b"1\r\n.\r\n", b"1\r\n.\r\n"
    return End(s, first, words, pause=0.1)


def silent(s, head):
    return End(s)


def uploads(port, path, more=""):
    """A client for each form of body."""
    found = {}
    for name, (head, block) in UPLOADS.items():
        first = f"POST {path} HTTP/1.1\r\nhost: h\r\n{more}".encode() + head
        found[f"{name} to {path}"] = End(connected(port), first, repeated(block))
    return found


@promise
async def a_request_that_never_ends_keeps_no_answer_back_and_ends_with_the_drain(binary):
    """ARCHITECTURE.md: bodies are streamed both ways at once. docs/running.md: `drain_timeout` bounds what runs."""
    async with Hose(ticking) as app, Server(answering()) as good:
        async with Attache(binary, CONFIG, workers=1, APP=app.port, GOOD=good.port) as attache:
            # What flows without a `timeout` is bounded by nothing but the drain.
            attache.change("timeout: 2s", "timeout: off")
            await reloaded(attache)
            async with Others(attache["OTHER"]):
                ends = uploads(attache["OUT"], "/")
                await asyncio.sleep(2.5)
            slow = {name: f"{end.largest_gap:.2f} s, last {time.monotonic() - end.heard:.2f} s ago" for name, end in ends.items()
                    if end.largest_gap > 1.5 or time.monotonic() - end.heard > 1.5}
            holds(not slow, "the answer stands still behind the request:", slow)
            await drains(attache, ends)


@promise
async def a_request_that_never_ends_is_cut_at_its_callers_deadline(binary):
    """docs/resilience.md: a deadline of the caller's own runs from the head, while `timeout` waits for the request's end."""
    config = CONFIG.replace("timeout: 2s", "timeout: 60s, deadline_header: x-left")
    async with Hose(silent) as app, Server(answering()) as good:
        async with Attache(binary, config, workers=1, APP=app.port, GOOD=good.port) as attache:
            async with Others(attache["OTHER"]):
                ends = {f"{n}: {name}": end for n in range(2) for name, end in
                        uploads(attache["OUT"], f"/{n}", "x-left: 2000\r\n").items()}
                await all_over(ends, 1.9, 4, attache.said)


@promise
async def requests_without_an_end_to_their_number_leave_room_for_others(binary):
    """A client that sends requests as fast as it can, and reads the answers of attache itself as fast, until the drain."""
    config = CONFIG.replace('"127.0.0.1:$OUT", to: app', '"127.0.0.1:$OUT", routes: [{ match: { path: /own }, respond: 200 }], to: app')
    async with Server(answering()) as app:
        async with Attache(binary, config, workers=1, APP=app.port, GOOD=app.port) as attache:
            async with Others(attache["OTHER"]):
                blocks = {"own": get("/own"), "upstream": get("/"), "refused": get("/own", "expect: x\r\n")}
                ends = {f"{name}, {n}": End(connected(attache["OUT"]), b"", repeated(block))
                        for name, block in blocks.items() for n in range(3)}
                await asyncio.sleep(2)
            await drains(attache, ends)


COMES_AND_GOES = """
import socket, struct, sys, time
while True:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.sendall(sys.argv[2].encode())
    except OSError:
        time.sleep(0.01)
"""


@promise
async def connections_without_an_end_to_their_number_delay_no_drain(binary):
    """Clients that connect and leave as fast as they can: others are served, and the end comes in its time."""
    async with Server(answering()) as app:
        async with Attache(binary, CONFIG, workers=1, APP=app.port, GOOD=app.port) as attache:
            async with Others(attache["OTHER"]), Others(attache["OUT"]):
                # Processes of their own: as threads they would take Python's lock from the upstream and from the calls beside them.
                clients = [
                    subprocess.Popen([sys.executable, "-c", COMES_AND_GOES, str(attache[to]), sent])
                    for to in ("OUT", "RAW") for sent in ("", get().decode())
                ]
                await asyncio.sleep(1.5)
            try:
                await drains(attache, {})
            finally:
                for client in clients:
                    client.kill()
                    client.wait()


async def reloaded(attache):
    before = await attache.metric("attache_config_reloads_total")
    attache.signal("HUP")
    for _ in range(100):
        await asyncio.sleep(0.05)
        if await attache.metric("attache_config_reloads_total") > before:
            return
    holds(False, "it did not reload:", attache.said())


async def drains(attache, ends):
    began = time.monotonic()
    attache.signal("TERM")
    code, took = await attache.ended(8)
    holds(code == 0 and took < 1 + 3.5 + 0.7, f"code {code}, {took:.2f} s after SIGTERM")
    await asyncio.sleep(0.3)
    left = [name for name, end in ends.items() if end.over is None]
    holds(not left, f"not ended {time.monotonic() - began:.2f} s after SIGTERM:", left)


TUNNEL = "GET /ws HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


class Tunnels:
    """An upstream of tunnels that floods, or that reads and says a word every tenth of a second; and clients of all kinds."""

    def __init__(self, floods):
        self.floods, self.block = floods, repeated(b"x" * 4096)

    def server(self):
        def each(s, head):
            first = b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" if b"upgrade" in head else b"hello"
            flood = self.floods == "both" or self.floods == "server"
            return End(s, first, self.block if flood else b".", 0 if flood else 0.1)
        return Hose(each)

    def clients(self, attache, app):
        opening = {
            "raw": ("RAW", get()), "copied": ("COPIED", get()), "websocket": ("OUT", TUNNEL.encode()),
            "connect": ("TUNNELS", f"CONNECT 127.0.0.1:{app} HTTP/1.1\r\nhost: 127.0.0.1:{app}\r\n\r\n".encode()),
        }
        ends = {}
        for name, (listener, asks) in opening.items():
            for n in range(3):
                s, first = connected(attache[listener]), asks
                if name == "connect":
                    s.sendall(asks)
                    told = s.recv(4096)
                    holds(b" 200 " in told, "no tunnel:", told)
                    first = get()
                flood = self.floods == "both" or self.floods == "client"
                ends[f"{name}, {n}"] = End(s, first, self.block if flood else b".", 0 if flood else 0.1)
        return ends


@promise
async def a_flood_through_a_tunnel_holds_up_nothing(binary):
    """Each direction continues to work while the other one is flooded, other calls are served, and the drain ends the tunnels."""
    for floods in ("client", "server", "both"):
        tunnels = Tunnels(floods)
        async with tunnels.server() as app, Server(answering()) as good:
            async with Attache(binary, CONFIG, workers=1, APP=app.port, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = tunnels.clients(attache, app.port)
                    await asyncio.sleep(2)
                now = time.monotonic()
                still = {f"{name} ({side})": f"{max(end.largest_gap, now - end.heard):.2f} s"
                         for side, all_of in (("client", ends), ("server", dict(enumerate(app.ends))))
                         for name, end in all_of.items() if max(end.largest_gap, now - end.heard) > 1.5}
                holds(not still, f"a flood by {floods} keeps the other direction back:", still)
                await drains(attache, ends)


@promise
async def a_flood_through_a_tunnel_ends_with_a_reload_or_its_endpoint(binary):
    """docs/running.md: `reload.drain_timeout`; docs/balancing.md: `on_unhealthy: close`."""
    config = CONFIG.replace("raw: tcp://127.0.0.1:$APP", """raw:
    address: tcp://127.0.0.1:$APP
    on_unhealthy: close
    health_check: { port: $HEALTH, path: /, interval: 200ms, timeout: 500ms, unhealthy: 1 }""")
    tunnels, well = Tunnels("both"), [True]

    async def health(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s X\r\ncontent-length: 0\r\n\r\n" % (b"200" if well[0] else b"500"))

    async with tunnels.server() as app, Server(answering()) as good, Server(health) as checked:
        async with Attache(binary, config, workers=1, APP=app.port, GOOD=good.port, HEALTH=checked.port) as attache:
            async with Others(attache["OTHER"]):
                ends = tunnels.clients(attache, app.port)
                await asyncio.sleep(1)
                attache.change('bind: "127.0.0.1:$TUNNELS"', 'bind: "127.0.0.1:$TUNNELS"\n    http: { idle_timeout: 7s }')
                attache.change('"127.0.0.1:$OUT", to', '"127.0.0.1:$OUT", http: { idle_timeout: 7s }, to')
                attache.signal("HUP")
                gone = {name: end for name, end in ends.items() if name[:3] in ("con", "web")}
                await all_over(gone, 1, 5, attache.said)
                well[0] = False
                began = time.monotonic()
                while time.monotonic() < began + 4 and any(end.over is None for end in ends.values()):
                    await asyncio.sleep(0.05)
                left = [name for name, end in ends.items() if end.over is None]
                holds(not left, "an endpoint that is unhealthy keeps", left, attache.said())
