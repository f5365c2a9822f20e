"""The callers of the tables. Each has one connection, opens a new one if the proxy has closed it, and reports the result of each call."""
import asyncio, re

import h2.config, h2.connection, h2.events, h2.exceptions

from pods import GAP, MESSAGES

LISTEN = 9000
# By name: what is sent, and whether a call needs a connection of its own.
PROTOCOLS = ("http1 GET", "http1 POST", "http2 GET", "http2 POST", "grpc POST", "grpc stream", "websocket", "opaque", "connect")


class Caller:
    def __init__(self, protocol):
        self.protocol, _, self.method = protocol.partition(" ")
        self.reader = self.writer = None

    async def call(self):
        """`ok`, or what was wrong."""
        try:
            return await asyncio.wait_for(self.once(), 10)
        except (OSError, asyncio.TimeoutError, EOFError, h2.exceptions.ProtocolError) as error:
            self.reader = None
            return type(error).__name__

    async def once(self):
        if self.reader is None or self.protocol in ("opaque", "connect", "websocket"):
            if self.writer:
                self.writer.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", LISTEN)
            self.h2 = None
        if self.protocol in ("http2", "grpc"):
            return await self.http2()
        return await getattr(self, self.protocol)()

    async def opaque(self):
        self.writer.write(b"hello")
        back = await self.reader.read(5)
        return {b"hello": "ok", b"WRONG": "another service"}.get(back, "cut")

    async def connect(self):
        self.writer.write(b"CONNECT svc:80 HTTP/1.1\r\nhost: svc:80\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        return await self.opaque() if b" 200" in head[:13] else failure(head)

    async def http1(self):
        body = b"x" * 1000 if self.method == "POST" else b""
        length = f"content-length: {len(body)}\r\n" if body else ""
        self.writer.write(f"{self.method} / HTTP/1.1\r\nhost: svc\r\n{length}\r\n".encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length, body = re.search(rb"content-length: *(\d+)", head, re.I), b""
        if length:
            body = await self.reader.readexactly(int(length[1]))
        if not length or re.search(rb"connection: *close", head, re.I):
            self.reader = None
        if b" 200" not in head[:13]:
            return failure(head)
        return "ok" if body == b"ok" else "another service"

    async def websocket(self):
        """Sends messages and reads their echo for a second; then closes."""
        self.writer.write(b"GET / HTTP/1.1\r\nhost: svc\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                          b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b" 101" not in head[:13]:
            return failure(head)
        try:
            for _ in range(MESSAGES):
                self.writer.write(b"\x82\x85\0\0\0\0hello")
                if await self.reader.readexactly(7) != b"\x82\x05hello":
                    return "wrong message"
                await asyncio.sleep(GAP)
            self.writer.write(b"\x88\x80\0\0\0\0")
            await self.reader.readexactly(2)
        except (OSError, EOFError):
            return "cut while open"
        return "ok"

    async def http2(self):
        if self.h2 is None:
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            self.h2.initiate_connection()
        stream, body = self.h2.get_next_available_stream_id(), b"" if self.method == "GET" else b"\0\0\0\x03\xe3" + b"x" * 995
        path = "/stream" if self.method == "stream" else "/"
        headers = [(":method", "GET" if self.method == "GET" else "POST"), (":scheme", "http"), (":path", path), (":authority", "svc")]
        if self.protocol == "grpc":
            headers += [("content-type", "application/grpc"), ("te", "trailers")]
        self.h2.send_headers(stream, headers, end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.writer.write(self.h2.data_to_send())
        seen, messages = {}, 0
        while True:
            piece = await self.reader.read(65536)
            if not piece:
                raise EOFError
            for event in self.h2.receive_data(piece):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    seen.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    messages += 1
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    return "cut while open" if messages else "reset"
                elif isinstance(event, h2.events.StreamEnded):
                    self.writer.write(self.h2.data_to_send())
                    if seen.get(":status") == "200" and seen.get("grpc-status", "0") == "0":
                        return "ok"
                    if self.method == "stream" and messages:
                        return "cut while open"
                    other = seen.get("grpc-status") == "12"
                    return "another service" if other else f"{seen.get(':status', '')} {seen.get('x-attache-reason', '')}".strip()
            self.writer.write(self.h2.data_to_send())


def failure(head):
    found = re.search(rb"x-attache-reason: *(\S+)", head, re.I)
    return head[9:12].decode() + (" " + found[1].decode() if found else "")


def tally(results):
    failed = [result for result in results if result != "ok"]
    kinds = ", ".join(f"{kind}: {failed.count(kind)}" for kind in sorted(set(failed)))
    return f"{len(failed)} of {len(results)}" + (f" ({kinds})" if kinds else "")
