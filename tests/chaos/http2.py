"""HTTP/2 (RFC 9113) by frames: a client that calls, and clients that leave at each phase."""

import asyncio
import struct

from clients import Cut, NoAnswer, connect, counted
from endpoints import reset
from program import WEB

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# The static table's `:status` (RFC 7541, appendix A).
STATUS = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def text(value):
    return bytes([len(value)]) + value


def head(path, method=0x82):
    """A field block without the dynamic table: method by its index, scheme http, `:path`, `:authority`."""
    return bytes([method, 0x86, 0x04]) + text(path) + b"\x01" + text(b"app")


def begin(window=1 << 20):
    settings = frame(SETTINGS, 0, 0, struct.pack("!HI", 4, window))
    return PREFACE + settings + frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", (1 << 30)))


async def read_frame(reader):
    try:
        start = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(start[:3], "big"))
    except (asyncio.IncompleteReadError, ConnectionError):
        raise NoAnswer from None
    return start[3], start[4], int.from_bytes(start[5:9], "big") & 0x7FFFFFFF, payload


async def http2(tally, going, pause=0.0, at_once=8, rounds=10):
    """Rounds of streams at once, on connections of some rounds."""
    while going():
        reader, writer = await connect(WEB)
        writer.write(begin())
        for number in range(rounds):
            async with counted(tally):
                await calls(reader, writer, tally, range(number * at_once * 2 + 1, (number + 1) * at_once * 2, 2))
            if not going() or reader.at_eof():
                break
            await asyncio.sleep(pause)
        writer.write(frame(GOAWAY, 0, 0, bytes(8)))
        writer.close()


async def calls(reader, writer, tally, streams):
    for stream in streams:
        path = b"/%d" % (10, 2000, 60000)[stream // 2 % 3]
        writer.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, head(path)))
    missing = dict.fromkeys(streams)
    while missing:
        kind, flags, stream, payload = await read_frame(reader)
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            writer.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise Cut
        elif stream in missing:
            if kind == HEADERS and missing[stream] is None:
                missing[stream] = STATUS.get(payload[0] if payload[0] & 0xE0 != 0x20 else payload[1], 503)
            if kind == RST_STREAM:
                tally.cut += 1
                del missing[stream]
            elif kind in (DATA, HEADERS) and flags & END_STREAM:
                tally.answered(missing.pop(stream), "")


# Where a client leaves: its frames behind the preface. The opaque ones are no request yet.
GET, POST = head(b"/60000"), head(b"/100", 0x83)
PHASES = {
    "in the preface": None,
    "behind the preface": b"",
    "in a frame of a head": frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)[:12],
    "before END_HEADERS": frame(HEADERS, END_STREAM, 1, GET),
    "behind the head": frame(HEADERS, END_HEADERS | END_STREAM, 1, GET),
    "before the body": frame(HEADERS, END_HEADERS, 1, POST),
    "in the body": frame(HEADERS, END_HEADERS, 1, POST) + frame(DATA, 0, 1, b"b" * 100),
    "in the answer": frame(HEADERS, END_HEADERS | END_STREAM, 1, head(b"/4000000")),
    "RST_STREAM behind the head":
        frame(HEADERS, END_HEADERS | END_STREAM, 1, GET) + frame(RST_STREAM, 0, 1, struct.pack("!I", 8)),
    "RST_STREAM in the body":
        frame(HEADERS, END_HEADERS, 1, POST) + frame(DATA, 0, 1, b"b") + frame(RST_STREAM, 0, 1, struct.pack("!I", 8)),
    "GOAWAY behind the head":
        frame(HEADERS, END_HEADERS | END_STREAM, 1, GET) + frame(GOAWAY, 0, 0, bytes(8)),
}
OPAQUE = ("in the preface", "behind the preface", "in a frame of a head", "before END_HEADERS")


async def leave(tally, phase, hard):
    """One client that leaves in this phase, by FIN or (`hard`) RST. Its window stays small, so that an answer can't be sent whole."""
    reader, writer = await connect(WEB)
    frames = PHASES[phase]
    writer.write(PREFACE[:10] if frames is None else begin(65535) + frames)
    await writer.drain()
    if phase == "in the answer":
        while (await read_frame(reader))[0] != DATA:
            pass
    else:
        await asyncio.sleep(0.01)
    if hard:
        reset(writer)
    writer.close()
    # What RST overtakes may never have been read.
    if phase in OPAQUE or hard and phase != "in the answer":
        tally.opaque += 1
    else:
        tally.aborted += 1
