"""Requests and responses that only an attacker or a broken program sends."""

import asyncio
import collections
import re
import time

from world import Attache, Server, answering, call, get, head, holds, promise, silent

SIMPLE = """
listeners:
  out: { bind: "127.0.0.1:$OUT", to: app }
upstreams:
  app: { address: "http://127.0.0.1:$APP", timeout: 5s }
"""
CLOSE = "connection: close\r\n"


@promise
async def a_cut_body_never_looks_whole_to_any_client(binary):
    """docs/http.md: if one side of a body is cut, so is the other. A client of HTTP/1.0 sees a reset, since an end would look whole."""
    cuts = {
        "/length": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123456789",
        "/chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n",
        "/in-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n123",
        "/last": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
        "/nothing": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    }

    async def each(reader, writer):
        writer.write(cuts[(await head(reader)).split()[1].decode()])
        await writer.drain()

    async with Server(each) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            for path in cuts:
                for version in ("1.0", "1.1"):
                    got = await call(attache["OUT"], get(path, CLOSE, version))
                    lower = got.lower()
                    whole = b"\r\n0\r\n\r\n" in got
                    told = b"content-length" in lower or b"chunked" in lower or got.endswith(b"RESET") or b" 502 " in got
                    holds(not whole and told, f"{path} HTTP/{version}: {got}")


@promise
async def nothing_behind_a_refused_message_is_read(binary):
    bad = [
        b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3, 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3;\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\nhost: x\r\n y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1\nhost: h\n\n",
        b"GET /../a HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /a\xc3\xa9 HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET  / HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1 \r\nhost: h\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nx: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : h\r\n\r\n",
        b"CONNECT h HTTP/1.1\r\nhost: h\r\n\r\n",
    ]
    note = []
    async with Server(answering(note=note)) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            for n, message in enumerate(bad):
                for pause in (0, 0.02):
                    reader, writer = await asyncio.open_connection("127.0.0.1", attache["OUT"])
                    writer.write(message)
                    await asyncio.sleep(pause)
                    writer.write(get(f"/smuggled-{n}"))
                    try:
                        got = await asyncio.wait_for(reader.read(-1), 5)
                    except ConnectionResetError:
                        got = b""
                    holds(b" 200 " not in got, f"{message}: {got[:80]}")
                    writer.close()
            found = [line for line in note if b"smuggled" in line]
            holds(not found, found)


@promise
async def bytes_behind_an_answer_are_nobodys_answer(binary):
    """A connection on which an upstream said more than was asked for is used no more."""
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-poison: yes\r\n\r\npoison"
    odd = {
        "length": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "GET"),
        "chunked": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "GET"),
        "both": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "GET"),
        "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        "204-length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", "GET"),
        "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", "GET"),
        "head": (b"HTTP/1.1 200 OK\r\ncontent-length: 62\r\n\r\n", "HEAD"),
        "head-chunked": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HEAD"),
        "early": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "POST"),
        "late-100": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 100 Continue\r\n\r\n", "GET"),
    }

    async def each(reader, writer):
        while data := await head(reader):
            parts = data.split()[1].decode().strip("/").split("/")
            if parts[0] == "good":
                said = parts[1].encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
                continue
            writer.write(odd[parts[1]][0])
            await asyncio.sleep(float(parts[2]))
            writer.write(poison)

    async with Server(each) as app:
        config = SIMPLE.replace("timeout: 5s", "timeout: 5s, pool: { idle_timeout: 30s }")
        async with Attache(binary, config, workers=1, APP=app.port) as attache:
            number = 0
            for name, (_, method) in odd.items():
                for wait in ("0", "0.005", "0.05"):
                    for pause in (0, 0.02, 0.1):
                        # What comes behind the next request can't be told from its answer by anybody.
                        if pause < 2 * float(wait):
                            continue
                        number += 1
                        body = "content-length: 100000\r\n" if name == "early" else ""
                        first = f"{method} /odd/{name}/{wait} HTTP/1.1\r\nhost: h\r\n{body}\r\n".encode()
                        reader, writer = await asyncio.open_connection("127.0.0.1", attache["OUT"])
                        writer.write(first)
                        await asyncio.wait_for(head(reader), 5)
                        await asyncio.sleep(pause)
                        for again in range(3):
                            got = await call(attache["OUT"], get(f"/good/{number}.{again}", CLOSE))
                            holds(b"poison" not in got, f"{name}, {wait}, {pause}: {got}")
                            holds(got.endswith(f"{number}.{again}".encode()), f"{name}, {wait}, {pause}: {got}")
                        writer.transport.abort()


@promise
async def a_flood_of_interim_answers_is_bounded_in_memory_and_time(binary):
    """docs/http.md: 64 KiB of them for a client that doesn't read; docs/resilience.md: they extend no deadline."""
    sent = collections.Counter()

    async def each(reader, writer):
        await head(reader)
        block = b"HTTP/1.1 103 Early Hints\r\nlink: </" + b"x" * 1000 + b">\r\n\r\n"
        while True:
            writer.write(block * 50)
            await writer.drain()
            sent["bytes"] += len(block) * 50

    async with Server(each) as app:
        async with Attache(binary, SIMPLE.replace("timeout: 5s", "timeout: 3s"), APP=app.port) as attache:
            before, kept = attache.memory(), []
            for _ in range(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", attache["OUT"], limit=1024)
                reader._transport.pause_reading()
                writer.write(get())
                kept.append((reader, writer))
            most = 0
            for _ in range(14):
                await asyncio.sleep(0.2)
                most = max(most, attache.memory() - before)
            holds(most < 16 * 1024, f"{most} KiB for ten clients after {sent['bytes']} bytes")
            await asyncio.sleep(2.2)
            holds(not app.open, "the upstream's calls run on behind their deadline")


@promise
async def a_request_that_may_not_be_sent_twice_never_is(binary):
    """The upstream reads it whole and closes, on new connections and on kept ones; other methods are bounded by `attempts`."""
    seen = collections.Counter()

    async def each(reader, writer):
        # Every second request of a connection ends it without an answer.
        number = 0
        while data := await head(reader):
            length = re.search(rb"content-length: (\d+)", data)
            if length:
                await reader.readexactly(int(length[1]))
            seen[data.split()[1].decode()] += 1
            number += 1
            if number == 2 or b"/now" in data:
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    retry = "retry: { attempts: 2, on: [connect-failure, refused-stream, reset, 5xx], budget: 100% }"
    async with Server(each) as app:
        async with Attache(binary, SIMPLE.replace("timeout: 5s", "timeout: 5s, " + retry), APP=app.port) as attache:
            async def one(n):
                method, most = [("POST", 1), ("PATCH", 1), ("PUT", 5), ("DELETE", 5)][n % 4]
                now = "now" if n % 3 == 0 else "later"
                path = f"/{method}/{n}/{now}"
                body = "x" * (0 if n % 5 == 0 else 100)
                data = f"{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n{CLOSE}\r\n{body}"
                await call(attache["OUT"], data.encode())
                holds(seen[path] <= most, f"{path} was sent {seen[path]} times")

            for start in range(0, 240, 12):
                await asyncio.gather(*(one(n) for n in range(start, start + 12)))


@promise
async def a_callers_deadline_is_a_plain_number_or_nothing(binary):
    """docs/resilience.md: 0 is not sent, what is no plain number is ignored, and what is passed on is never more than the route's."""
    note = []
    config = SIMPLE.replace("timeout: 5s", "timeout: 5s, deadline_header: x-left")
    values = {
        "250": 250, "5000": 5000, "00250": 5000, "99999999999999999999999999": 5000, "18446744073709551616": 5000, "-1": 5000,
        "+250": 5000, "2e2": 5000, "0x10": 5000, "250ms": 5000, "": 5000, "25 0": 5000, "250, 100": 5000,
    }
    async with Server(answering(note=note)) as app:
        async with Attache(binary, config, APP=app.port) as attache:
            for value, most in values.items():
                note.clear()
                got = await call(attache["OUT"], get(more=f"x-left: {value}\r\n{CLOSE}"))
                holds(b" 200 " in got and len(note) == 1, f"{value!r}: {got[:200]}")
                found = re.findall(rb"(?im)^x-left: *(.*)\r$", note[0])
                holds(len(found) == 1 and found[0].isdigit() and 0 < int(found[0]) <= most, f"{value!r} became {found}")
            note.clear()
            got = await call(attache["OUT"], get(more=f"x-left: 0\r\n{CLOSE}"))
            holds(b" 504 " in got and not note, f"0: {got[:200]}")


@promise
async def a_retry_waits_for_no_absurd_time(binary):
    """`Retry-After`: what doesn't fit into the deadline, or is longer than 30 s, is no wait."""
    waits = [
        b"0", b"1e9", b"-1", b"99999999999999999999", b"3600", b"31", b"Fri, 31 Dec 9999 23:59:59 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994", b"Sun, 99 Nov 1994 99:99:99 GMT",
        b"\xff\xfe", b"", b"1, 2", b"0.5",
    ]
    seen = collections.Counter()

    async def each(reader, writer):
        while data := await head(reader):
            number = int(data.split()[1][1:])
            seen[number] += 1
            if seen[number] == 1:
                # A date of its own, so that dates are compared with something.
                date = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n" + date + b"retry-after: " + waits[number] + b"\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    config = SIMPLE.replace("timeout: 5s", "timeout: 4s, retry: { on: [503], attempts: 1, budget: 100% }")
    async with Server(each) as app:
        async with Attache(binary, config, APP=app.port) as attache:
            for number, wait in enumerate(waits):
                began = time.monotonic()
                got = await call(attache["OUT"], get(f"/{number}", CLOSE))
                took = time.monotonic() - began
                holds(re.match(rb"HTTP/1.1 (200|503) ", got) and took < 2, f"{wait}: {got[:60]} after {took:.2f} s")


@promise
async def a_body_that_waits_for_a_word_is_sent_after_a_second(binary):
    """docs/http.md: `Expect: 100-continue`, and an upstream that never agrees and never answers before it has the body."""
    async def each(reader, writer):
        while data := await head(reader):
            began = time.monotonic()
            await reader.readexactly(5)
            said = f"{time.monotonic() - began:.2f}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)

    async with Server(each) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            for version in ("1.1", "1.0"):
                expect = f"content-length: 5\r\nexpect: 100-continue\r\n{CLOSE}"
                data = f"POST / HTTP/{version}\r\nhost: h\r\n{expect}\r\nhello".encode()
                got = await call(attache["OUT"], data)
                waited = float(got[-4:]) if b" 200 " in got else -1
                holds(0 <= waited < 1.7, f"HTTP/{version}: {got}")


@promise
async def max_forwards_of_any_form_is_no_error_of_ours(binary):
    note = []
    async with Server(answering(note=note)) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            for value in ("0", "00", "1", "+1", "-1", "256", "18446744073709551616", "", "1, 0", "x"):
                for method in ("OPTIONS", "TRACE", "GET"):
                    note.clear()
                    data = f"{method} / HTTP/1.1\r\nhost: h\r\nmax-forwards: {value}\r\n{CLOSE}\r\n".encode()
                    got = await call(attache["OUT"], data)
                    holds(re.match(rb"HTTP/1.1 [24]\d\d ", got), f"{method} {value!r}: {got[:100]}")
                    passed = re.findall(rb"(?im)^max-forwards: *(.*)\r$", note[0]) if note else []
                    if method != "GET" and value.isdigit():
                        holds(bool(note) == (int(value) > 0), f"{method} {value!r} was passed on as {passed}")
                        holds(not note or int(passed[0]) < int(value), f"{method} {value!r} was passed on as {passed}")


@promise
async def a_client_that_sends_no_more_and_reads_no_more_frees_what_it_holds(binary):
    """Aborted in each phase, five hundred times: nothing stays in flight and no descriptor is left."""
    import os

    async with Server(silent) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            fds = f"/proc/{attache.process.pid}/fd"
            before = len(os.listdir(fds))
            parts = [b"", b"GE", b"GET / HTTP/1.1\r\nho", get(), b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nab",
                     b"PRI * HTTP/2.0\r\n\r\nSM", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"]
            for n in range(500):
                reader, writer = await asyncio.open_connection("127.0.0.1", attache["OUT"])
                writer.write(parts[n % len(parts)])
                await asyncio.sleep(0.002)
                writer.transport.abort()
            for _ in range(60):
                await asyncio.sleep(0.2)
                if len(os.listdir(fds)) <= before + 2:
                    break
            left = len(os.listdir(fds)) - before
            holds(left <= 2, f"{left} descriptors are left")
            holds(await attache.metric("attache_requests_in_flight") == 0, "requests are still in flight")
