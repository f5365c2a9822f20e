"""What people and their tools read: metrics, logs, readiness."""

import asyncio
import json

from world import Attache, Server, answering, call, get, holds, promise

SIMPLE = """
listeners:
  out: { bind: "127.0.0.1:$OUT", to: app }
upstreams:
  app: { address: "http://127.0.0.1:$APP" }
"""
CLOSE = "connection: close\r\n"


@promise
async def no_client_adds_series_to_the_metrics(binary):
    """A label's values are a closed list, or the config's."""
    async with Server(answering()) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            await call(attache["OUT"], get(more=CLOSE))
            before = len((await attache.get("/metrics")).splitlines())
            for n in range(300):
                method = ["GET", f"M{n}", "PROPFIND", "get"][n % 4]
                more = f"x-request-id: {n}\r\nuser-agent: u{n}\r\nx-forwarded-for: 10.0.{n % 256}.1\r\npriority: u={n}\r\n"
                await call(attache["OUT"], f"{method} /{n}?{n} HTTP/1.1\r\nhost: h{n}\r\n{more}{CLOSE}\r\n".encode())
                await call(attache["OUT"], f"{method} /{n} HTTP/1.{n % 10}\r\nhost: h{n}\r\nx{n}: \0\r\n\r\n".encode())
            grown = len((await attache.get("/metrics")).splitlines()) - before
            holds(grown < 80, f"{grown} lines more")


@promise
async def a_line_of_the_log_is_one_request_whatever_a_client_writes(binary):
    """docs/running.md: bytes from peers can never start a new line; and JSON stays JSON."""
    odd = ["%0a", "%0d%0aFAKE", "%1b[2J", "%00", '"', "%22", "\\", "{}", "%e2%80%a8", "$(id)", "'", "%25%7b", "\u00e9"]
    fields = '{ a: "%{request.header.user-agent}", b: "%{path} %{host}", c: "%{request.header.x-odd}" }'
    for kind, form in (("json", f"{{ json: {fields} }}"), ("text", '{ template: "[%{request.header.user-agent}] [%{request.header.x-odd}]" }')):
        config = f'access_log: {{ to: "$FOLDER/access", format: {form} }}\n' + SIMPLE
        async with Server(answering()) as app:
            async with Attache(binary, config, APP=app.port) as attache:
                sent = 0
                for text in odd:
                    raw = text.encode("latin-1")
                    for value in (raw, raw + b"\t" + raw, b"\x80\xff" + raw, b"\xe2\x80\xa8\xc2\x85" + raw):
                        path = text.replace('"', "%22").replace("\\", "%5c").replace("\u00e9", "e").encode()
                        data = b"GET /%s HTTP/1.1\r\nhost: h\r\nuser-agent: %s\r\nx-odd: %s\r\n%s\r\n" % (path, value, value, CLOSE.encode())
                        await call(attache["OUT"], data)
                        sent += 1
                await asyncio.sleep(0.5)
                written = (attache.folder / "access").read_bytes()
                lines = written.split(b"\n")[:-1]
                # Readers that know Unicode break lines at more than LF.
                broken = written.decode(errors="replace").splitlines()
                holds(len(lines) == sent, f"{kind}: {len(lines)} lines for {sent} requests")
                holds(len(broken) == sent, f"{kind}: a reader of Unicode sees {len(broken)} lines for {sent} requests")
                holds(not any(byte < 32 for line in lines for byte in line), f"{kind}: a control byte in {lines}")
                if kind == "json":
                    for line in lines:
                        json.loads(line)


@promise
async def silent_connections_keep_no_probe_from_its_answer(binary):
    """600 connections that say nothing, or a part, to the port of probes and to the admin API."""
    config = SIMPLE + 'admin: { bind: "127.0.0.1:$ADMIN" }\n'
    async with Server(answering()) as app:
        attache = Attache(binary, config, APP=app.port)
        attache.write(attache.text.replace("admin: off\n", ""))
        async with attache:
            kept = []
            for n in range(600):
                reader, writer = await asyncio.open_connection("127.0.0.1", attache["METRICS" if n % 2 else "ADMIN"])
                writer.write([b"", b"GET /readyz HT", b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n"][n % 3])
                kept.append(writer)
            answer = await asyncio.wait_for(attache.get("/readyz"), 2)
            holds(b" 200 " in answer[:20], answer)
            status = await call(attache["ADMIN"], get("/stats.json", CLOSE).replace(b"host: h", b"host: localhost"), 3)
            holds(b" 200 " in status[:20], status[:100])
            holds(b"200 OK" in await call(attache["OUT"], get(more=CLOSE), 3), "calls are not served")
            for writer in kept:
                writer.transport.abort()


@promise
async def the_metrics_say_what_the_clients_saw(binary):
    """Each request is counted once, with the class of the status that its client got, also the odd ones."""
    async def each(reader, writer):
        while data := await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 %s X\r\ncontent-length: 0\r\n\r\n" % data.split()[1][1:])

    async with Server(each) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            seen = {}
            for status in (200, 204, 299, 301, 304, 404, 418, 499, 500, 503, 599, 200, 999, 99, 600):
                got = await call(attache["OUT"], get(f"/{status}", CLOSE))
                # RFC 9110 section 15: 600 and more are a 5xx to a client.
                kind = min(got.split()[1].decode()[0], "5") + "xx"
                seen[kind] = seen.get(kind, 0) + 1
            for request in (b"GET / HTTP/1.1\r\n\r\n", b"BAD\r\n\r\n", b"GET /../ HTTP/1.1\r\nhost: h\r\n\r\n"):
                got = await call(attache["OUT"], request)
                kind = got.split()[1].decode()[0] + "xx"
                seen[kind] = seen.get(kind, 0) + 1
            await asyncio.sleep(0.3)
            counted = {}
            for line in (await attache.get("/metrics")).decode().splitlines():
                if line.startswith("attache_requests_total{"):
                    kind = line.split('code="')[1].split('"')[0]
                    counted[kind] = counted.get(kind, 0) + float(line.rsplit(" ", 1)[1])
            counted = {kind: count for kind, count in counted.items() if count}
            holds(counted == seen, f"counted {counted}, seen {seen}")
