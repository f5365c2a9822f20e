"""Floods of HTTP/2 frames, by an upstream and by clients: what ends them in time, and that others are served meanwhile."""

import asyncio
import struct
import threading
import time

from floods import drains
from hose import End, Hose, Others, all_over, connected, repeated
from world import Attache, Server, answering, call, get, holds, promise

CONFIG = """
shutdown: { drain_timeout: 1s }
listeners:
  out: { bind: "127.0.0.1:$OUT", http: { header_timeout: 2s, write_timeout: 2s }, to: app }
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  app: { address: "$SCHEME://127.0.0.1:$APP", timeout: 2s }
  good: { address: "http://127.0.0.1:$GOOD" }
"""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK, END_STREAM, END_HEADERS, PADDED = 1, 1, 4, 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def text(value):
    return bytes([len(value)]) + value


def request(path=b"/", method=0x82):
    """A field block without the dynamic table: method by its index, scheme http, `:path`, `:authority`."""
    return bytes([method, 0x86, 0x04]) + text(path) + b"\x01" + text(b"h")


POST = 0x83
WIDE = frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 0x7FFFFFFF)) + frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 0x7FFF0000))
STATUS_103 = b"\x08" + text(b"103")
FIELD = b"\x00" + text(b"a") + text(b"b")


class Speaker(End):
    """An end that knows the windows that it was given, and sends DATA on a stream as long as there is some."""

    def __init__(self, s, first, blocks, pause=0.0, data_on=None):
        self.changed, self.rest, self.data_on = threading.Condition(), b"", data_on
        self.windows, self.initial, self.answered = {0: 65535}, 65535, []
        super().__init__(s, first, self.data if data_on else blocks, pause)

    def data(self):
        with self.changed:
            while (room := min(self.windows[0], self.windows.get(self.data_on, self.initial), 16384)) <= 0:
                if not self.changed.wait(1) and self.over:
                    raise OSError
            self.windows[0] -= room
            self.windows[self.data_on] = self.windows.get(self.data_on, self.initial) - room
        return frame(DATA, 0, self.data_on, b"x" * room)

    def took(self, data):
        data = self.rest + bytes(data)
        at = 0
        while len(data) - at >= 9 and len(data) - at >= 9 + (size := int.from_bytes(data[at:at + 3], "big")):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5:at + 9], "big")
            if kind in (WINDOW_UPDATE, SETTINGS, HEADERS):
                self.frame(kind, flags, stream, data[at + 9:at + 9 + size])
            at += 9 + size
        self.rest = data[at:]

    def frame(self, kind, flags, stream, payload):
        with self.changed:
            if kind == WINDOW_UPDATE:
                was = self.windows.get(stream, self.initial)
                self.windows[stream] = was + int.from_bytes(payload, "big")
            elif kind == SETTINGS and not flags & ACK:
                for n in range(0, len(payload), 6):
                    name, value = struct.unpack("!HI", payload[n:n + 6])
                    if name == 4:
                        # RFC 9113 section 6.9.2: streams that are open change with it.
                        self.windows = {at: room + (value - self.initial if at else 0) for at, room in self.windows.items()}
                        self.initial = value
            elif kind == HEADERS:
                self.answered.append((stream, time.monotonic() - self.began))
            self.changed.notify_all()


def read_preface(s):
    """No byte more: frames follow that say how much may be sent."""
    left = len(PREFACE)
    while left and (more := s.recv(left)):
        left -= len(more)


def empty_data(stream):
    return frame(DATA, PADDED, stream, b"\xff" + bytes(255))


def of_upstream():
    """What an upstream sends behind its SETTINGS, instead of an answer or after its head, for ever."""
    ok = frame(HEADERS, END_HEADERS, 1, b"\x88")
    return {
        "PING": (b"", frame(PING, 0, 0, bytes(8))),
        "SETTINGS": (b"", frame(SETTINGS, 0, 0)),
        "SETTINGS with values": (b"", frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 65535) * 100)),
        "WINDOW_UPDATE of the connection": (b"", frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1))),
        "WINDOW_UPDATE of the stream": (b"", frame(WINDOW_UPDATE, 0, 1, struct.pack("!I", 1))),
        "PRIORITY": (b"", frame(PRIORITY, 0, 1, bytes(5))),
        "unknown frames": (b"", frame(0xBB, 0, 0, b"x" * 100)),
        "large unknown frames": (b"", frame(0xBB, 0, 0, b"x" * 16384)),
        "GOAWAY": (b"", frame(GOAWAY, 0, 0, struct.pack("!II", 0x7FFFFFFF, 0))),
        "103": (b"", frame(HEADERS, END_HEADERS, 1, STATUS_103)),
        "CONTINUATION": (frame(HEADERS, 0, 1, b"\x88"), frame(CONTINUATION, 0, 1, FIELD * 100)),
        "empty CONTINUATION": (frame(HEADERS, 0, 1, b"\x88"), frame(CONTINUATION, 0, 1)),
        "empty DATA": (ok, frame(DATA, 0, 1)),
        "DATA": (ok, None),
        "RST_STREAM of nothing": (b"", frame(RST_STREAM, 0, 1001, struct.pack("!I", 8))),
    }


@promise
async def an_http2_upstream_that_floods_is_ended_at_the_timeout(binary):
    """docs/http2.md: at full speed, and just below the rate at which it is called a flood."""
    for pause in (0.0, 0.01):
        kinds = of_upstream()
        servers = {}

        def server(name):
            first, block = kinds[name]

            def each(s, head):
                read_preface(s)
                settings = frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)
                blocks = block and (repeated(block) if not pause else block * (100 if len(block) < 200 else 1))
                return Speaker(s, settings + first, blocks, pause, data_on=None if block else 1)
            return Hose(each, heads=False)

        async with Server(answering()) as good:
            for name in kinds:
                servers[name] = server(name)
            config = """
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
""" + "".join(f'  l{n}: {{ bind: "127.0.0.1:$L{"X" * n}", to: u{n} }}\n' for n in range(len(kinds))) + """
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
""" + "".join(f'  u{n}: {{ address: "h2c://127.0.0.1:{servers[name].port}", timeout: 2s, retry: off }}\n' for n, name in enumerate(kinds))
            async with Attache(binary, config, workers=1, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = {name: End(connected(attache["L" + "X" * n]), get(more="connection: close\r\n"))
                            for n, name in enumerate(kinds)}
                    await all_over(ends, 0, 4, attache.said)
                holds(attache.memory() < 200 * 1024, f"{attache.memory()} KiB")
            for one in servers.values():
                await one.__aexit__()


def of_client():
    """What a client sends behind its preface, for ever."""
    call_1, post_1 = frame(HEADERS, END_HEADERS | END_STREAM, 1, request()), frame(HEADERS, END_HEADERS, 1, request(method=POST))
    return {
        "PING": (call_1, frame(PING, 0, 0, bytes(8))),
        "SETTINGS": (call_1, frame(SETTINGS, 0, 0)),
        "WINDOW_UPDATE": (frame(SETTINGS, 0, 0) + call_1, frame(WINDOW_UPDATE, 0, 1, struct.pack("!I", 1))),
        "PRIORITY": (call_1, frame(PRIORITY, 0, 1, bytes(5))),
        "unknown frames": (call_1, frame(0xBB, 0, 0, b"x" * 100)),
        "large unknown frames": (call_1, frame(0xBB, 0, 0, b"x" * 16384)),
        "CONTINUATION": (frame(HEADERS, 0, 1, request()), frame(CONTINUATION, 0, 1, FIELD * 10)),
        "empty CONTINUATION": (frame(HEADERS, 0, 1, request()), frame(CONTINUATION, 0, 1)),
        "empty DATA": (post_1, frame(DATA, 0, 1)),
        "padding": (post_1, empty_data(1)),
        "DATA": (post_1, None),
        "DATA of a stream that is reset": (post_1 + frame(RST_STREAM, 0, 1, struct.pack("!I", 8)), frame(DATA, 0, 1)),
        "bytes that are no frames": (b"", b"\xff" * 100),
    }


def silent(s, head):
    return End(s)


@promise
async def an_http2_client_that_floods_delays_no_drain(binary):
    """At full speed, and below the rate that counts as a flood. Its other streams are answered, if its connection still stands."""
    for pause in (0.0, 0.01):
        async with Hose(silent) as app, Server(answering()) as good:
            config = CONFIG.replace("timeout: 2s }", "timeout: 60s }").replace("$SCHEME", "http")
            async with Attache(binary, config, workers=1, APP=app.port, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = {}
                    for name, (first, block) in of_client().items():
                        blocks = block and (repeated(block) if not pause else block * (50 if len(block) < 200 else 1))
                        ends[name] = Speaker(connected(attache["OUT"]), PREFACE + WIDE + first, blocks, pause,
                                             data_on=None if block else 1)
                    await asyncio.sleep(2.5)
                holds(attache.memory() < 200 * 1024, f"{attache.memory()} KiB")
                await drains(attache, ends)


@promise
async def a_head_that_never_ends_is_refused_at_header_timeout(binary):
    """CONTINUATION by CONTINUATION, slowly enough to reach no limit of size: `header_timeout` of two seconds."""
    async with Server(answering()) as app:
        config = CONFIG.replace("$SCHEME", "http")
        async with Attache(binary, config, workers=1, APP=app.port, GOOD=app.port) as attache:
            async with Others(attache["OTHER"]):
                ends = {}
                for name, payload in (("empty", b""), ("a field", FIELD)):
                    for n in range(3):
                        first = PREFACE + WIDE + frame(HEADERS, 0, 1, request())
                        ends[f"{name}, {n}"] = End(connected(attache["OUT"]), first, frame(CONTINUATION, 0, 1, payload), 0.05)
                await all_over(ends, 0, 4, attache.said)


@promise
async def a_stream_that_floods_keeps_no_other_stream_back(binary):
    """One connection: a request that never ends and is read as fast, and a call each tenth of a second beside it."""
    async def each(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/ok" in head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            return
        while await reader.read(1 << 20):
            pass

    async with Server(each) as app:
        config = CONFIG.replace("timeout: 2s }", "timeout: 60s }").replace("$SCHEME", "http")
        async with Attache(binary, config, workers=1, APP=app.port, GOOD=app.port) as attache:
            first = PREFACE + WIDE + frame(HEADERS, END_HEADERS, 1, request(b"/upload", POST))
            end = Speaker(connected(attache["OUT"]), first, None, data_on=1)
            for stream in range(3, 43, 2):
                end.words.append((stream, frame(HEADERS, END_HEADERS | END_STREAM, stream, request(b"/ok"))))
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            answered = dict(end.answered)
            missing = [stream for stream in range(3, 43, 2) if stream not in answered]
            holds(not missing, f"streams without an answer: {missing}; the connection ended after {end.over} s; "
                  f"sent: {end.said}, windows {end.windows}", attache.said())
            slowest = max(answered[stream] - sent for stream, sent in end.said.items())
            holds(slowest < 1.5, f"an answer beside the flood took {slowest:.2f} s")
            holds(b" 200 " in (await call(attache["OTHER"], get("/ok", "connection: close\r\n")))[:20], "others are not served")
            end.close()
