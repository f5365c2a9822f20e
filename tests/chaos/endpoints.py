"""Endpoints that can be told to misbehave, and a relay that delays what goes through it."""

import asyncio
import socket
import struct


def reset(writer):
    """Closes with RST instead of FIN."""
    if sock := writer.get_extra_info("socket"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Endpoint:
    """An HTTP/1 server. `GET /SIZE` answers as many bytes, `/hold` waits until `release` is set, an upgrade is echoed.

    `mode` is one of: fine, slow (an answer takes 2 s, in pieces), garbage (no HTTP), half-close (its FIN comes with half of the head), cut (FIN
    in the middle of the body), reset (RST there), stall (silence there).
    """

    def __init__(self, host, port=8080):
        self.host, self.port, self.mode, self.calls = host, port, "fine", 0
        self.writers, self.release = set(), asyncio.Event()
        self.waiting = 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, self.host, self.port, backlog=1024)
        return self

    async def stop(self, grace=0):
        """Takes no more connections; what runs has `grace` seconds."""
        self.server.close()
        await asyncio.sleep(grace)
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while await self.call(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def call(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        self.calls += 1
        if b"\r\nupgrade:" in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            await echo(reader, writer)
            return False
        if found := head.partition(b"\r\ncontent-length: ")[2]:
            await reader.readexactly(int(found.partition(b"\r\n")[0]))
        path = head.split(b" ")[1].decode()
        if path == "/hold":
            self.waiting += 1
            await self.release.wait()
            self.waiting -= 1
        size = int(path[1:]) if path[1:].isdigit() else 2
        return await self.answer(writer, size)

    async def answer(self, writer, size):
        head, body, mode = f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode(), b"x" * size, self.mode
        if mode == "garbage":
            writer.write(b"\x16\x03\x01 what is this?\r\n\x00\x00\r\n\r\n" * 4)
        elif mode == "half-close":
            writer.write(head[:20])
            writer.write_eof()
            await asyncio.sleep(2)
        elif mode in ("cut", "reset", "stall"):
            writer.write(head + body[: size // 2])
            await writer.drain()
            await asyncio.sleep(3 if mode == "stall" else 0.05)
            if mode == "reset":
                reset(writer)
        elif mode == "slow":
            writer.write(head)
            for at in range(8):
                await asyncio.sleep(0.25)
                writer.write(body[size * at // 8: size * (at + 1) // 8])
                await writer.drain()
        else:
            writer.write(head + body)
        await writer.drain()
        return mode in ("fine", "slow")


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def echo_server(host, port):
    async def serve(reader, writer):
        try:
            await echo(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    return await asyncio.start_server(serve, host, port, backlog=1024)


class Relay:
    """Stands before an endpoint and passes each byte on after `delay` seconds, whatever the order of the two directions."""

    def __init__(self, host, port, to):
        self.host, self.port, self.to, self.delay = host, port, to, 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, self.host, self.port, backlog=1024)
        return self

    async def serve(self, reader, writer):
        try:
            behind = await asyncio.open_connection(*self.to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.one_way(reader, behind[1]), self.one_way(behind[0], writer))

    async def one_way(self, reader, writer):
        """Reads without a pause; what was read leaves when its time has come."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue(256)

        async def leave():
            while True:
                at, data = await queue.get()
                await asyncio.sleep(max(0, at - loop.time()))
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        leaving, data = asyncio.create_task(leave()), b"-"
        try:
            while data:
                data = await reader.read(65536)
                await queue.put((loop.time() + self.delay, data))
            await leaving
        except OSError:
            leaving.cancel()
        finally:
            writer.close()
