"""Clients on raw sockets: HTTP/1, WebSocket, TCP, CONNECT. Each counts what became of its calls."""

import asyncio
import contextlib
import random

from endpoints import reset
from program import ECHO, PROXY, WEB

TIMEOUT = 15


class Cut(Exception):
    """The answer ended before its end."""


class NoAnswer(Exception):
    """Not one byte of an answer came."""


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def read_head(reader):
    """Status and fields of an answer."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise (Cut if getattr(error, "partial", b"") else NoAnswer) from None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ")[1]), fields


async def read_answer(reader, tally):
    """Counts a whole answer; returns its fields."""
    status, fields = await read_head(reader)
    try:
        if "content-length" in fields:
            await reader.readexactly(int(fields["content-length"]))
        elif fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        raise Cut from None
    tally.answered(status, fields.get("x-attache-reason", ""))
    return status, fields


def request():
    """Small and large answers, now and then a body."""
    if random.random() < 0.2:
        body = b"b" * 3000
        return b"POST /100 HTTP/1.1\r\nhost: app\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    return b"GET /%d HTTP/1.1\r\nhost: app\r\n\r\n" % random.choice((10, 2000, 60000))


@contextlib.asynccontextmanager
async def counted(tally):
    """What an end without an answer counts as."""
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    except Cut:
        tally.cut += 1
    except NoAnswer:
        tally.unanswered += 1
    except TimeoutError:
        tally.late += 1


async def http1(tally, going, pause=0.0, keep=20):
    """Calls on connections that are kept for `keep` calls."""
    while going():
        try:
            reader, writer = await connect(WEB)
        except OSError:
            tally.refused += 1
            await asyncio.sleep(0.05)
            continue
        for at in range(keep):
            ended = True
            async with counted(tally):
                writer.write(request())
                try:
                    status, fields = await read_answer(reader, tally)
                    ended = fields.get("connection", "").lower() == "close"
                except NoAnswer:
                    if not at:
                        raise
                    # RFC 9112, section 9.3.1: a server may close what is idle at any time, and this call was never begun.
                    tally.idle_closed += 1
            if ended or not going():
                break
            await asyncio.sleep(pause)
        writer.close()


async def websocket(tally, going, pause=0.01):
    while going():
        async with counted(tally):
            reader, writer = await connect(WEB)
            writer.write(b"GET /ws HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                         b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
            await through(reader, writer, 101, tally, pause)


async def tunnel(tally, going, pause=0.01):
    while going():
        async with counted(tally):
            reader, writer = await connect(PROXY)
            writer.write(b"CONNECT 127.0.1.1:8081 HTTP/1.1\r\nhost: 127.0.1.1:8081\r\n\r\n")
            await through(reader, writer, 200, tally, pause)


async def through(reader, writer, status, tally, pause):
    """Frames through a tunnel and back, if it was opened."""
    got, fields = await read_head(reader)
    if got == status:
        for _ in range(5):
            await round_trip(reader, writer)
            await asyncio.sleep(pause)
    writer.close()
    tally.answered(got, fields.get("x-attache-reason", ""))


async def tcp(tally, going, pause=0.01):
    while going():
        async with counted(tally):
            reader, writer = await connect(ECHO)
            for _ in range(5):
                await round_trip(reader, writer)
                await asyncio.sleep(pause)
            writer.close()
            tally.answers["", ""] += 1


async def round_trip(reader, writer):
    writer.write(b"ping" * 50)
    try:
        await reader.readexactly(200)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise Cut from None


# Where a client leaves: what it sends, what it waits for. Those of `OPAQUE` are no request yet.
BODY = b"POST /100 HTTP/1.1\r\nhost: app\r\ncontent-length: 5000\r\n\r\n"
PHASES = {
    "before the head": (WEB, b"", b""),
    "in the head": (WEB, b"GET /60000 HTTP/1.1\r\nho", b""),
    "behind the head": (WEB, b"GET /60000 HTTP/1.1\r\nhost: app\r\n\r\n", b""),
    "before the body": (WEB, BODY, b""),
    "in the body": (WEB, BODY + b"b" * 100, b""),
    "in the answer": (WEB, b"GET /4000000 HTTP/1.1\r\nhost: app\r\n\r\n", b"xxx"),
    "in a tunnel": (PROXY, b"CONNECT 127.0.1.1:8081 HTTP/1.1\r\nhost: 127.0.1.1:8081\r\n\r\nping", b"ping"),
    "in an upgraded connection": (
        WEB, b"GET /ws HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nping", b"ping"),
    "in an opaque connection": (ECHO, b"ping", b"ping"),
}
OPAQUE = ("before the head", "in the head")


async def leave(tally, phase, hard):
    """One client that leaves in this phase, by FIN or (`hard`) RST."""
    port, sent, awaited = PHASES[phase]
    reader, writer = await connect(port)
    writer.write(sent)
    await writer.drain()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        await asyncio.wait_for(reader.readuntil(awaited) if awaited else asyncio.sleep(0.01), TIMEOUT)
    if hard:
        reset(writer)
    writer.close()
    # What RST overtakes may never have been read.
    if phase in OPAQUE or hard and not awaited:
        tally.opaque += 1
    else:
        tally.aborted += 1
