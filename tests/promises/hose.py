"""Servers and clients that never stop. Each connection has threads of its own: they send and read while Python's lock is free, so
that they keep up with who is at the other end."""

import asyncio
import collections
import socket
import threading
import time

from world import call, get, holds

PIECE = 1 << 16


def repeated(block):
    """A block of about a MiB, so that a send takes long and a loop of Python costs nothing."""
    return block * max(1, (1 << 20) // len(block))


def read_head(s):
    data = b""
    while b"\r\n\r\n" not in data:
        more = s.recv(PIECE)
        if not more:
            raise ConnectionError
        data += more
    return data


class Thread(threading.Thread):
    """One that keeps no test from its end, and whose errors of the network are an end."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.do = run
        self.start()

    def run(self):
        try:
            self.do()
        except (OSError, ValueError):
            pass


class End:
    """One end of a connection: floods with what `blocks` gives, and reads all that comes."""

    def __init__(self, s, first=b"", blocks=None, pause=0.0, reads=True):
        self.socket, self.first, self.blocks, self.pause = s, first, blocks, pause
        self.read, self.last, self.head, self.began, self.over = 0, b"", b"", time.monotonic(), None
        self.largest_gap, self.heard = 0.0, time.monotonic()
        # What is sent between two blocks, by a name, and when it was.
        self.words, self.said = collections.deque(), {}
        if s.family != socket.AF_UNIX:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Thread(self.send)
        if reads:
            Thread(self.receive)

    def send(self):
        try:
            self.socket.sendall(self.first)
            while self.blocks is not None:
                while self.words:
                    name, word = self.words.popleft()
                    self.said[name] = time.monotonic() - self.began
                    self.socket.sendall(word)
                self.socket.sendall(self.blocks() if callable(self.blocks) else self.blocks)
                if self.pause:
                    time.sleep(self.pause)
        except OSError:
            self.ended()

    def receive(self):
        buffer = bytearray(1 << 18)
        try:
            while n := self.socket.recv_into(buffer):
                now = time.monotonic()
                self.largest_gap, self.heard = max(self.largest_gap, now - self.heard), now
                self.read += n
                if len(self.head) < 4096:
                    self.head += buffer[:n]
                self.last = bytes(buffer[max(0, n - 200):n])
                self.took(memoryview(buffer)[:n])
        except OSError:
            pass
        self.ended()

    def took(self, data):
        """For those that must know what they read."""

    def ended(self):
        self.over = self.over or time.monotonic() - self.began

    def close(self):
        self.blocks = None
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def connected(port):
    s = socket.create_connection(("127.0.0.1", port))
    # Threads that hang would keep the test's sockets for ever.
    s.settimeout(60)
    return s


class Hose:
    """A server that does `each(socket, head)` for each connection, which returns its `End`. Without `heads` it waits for none."""

    def __init__(self, each, heads=True):
        self.each, self.heads, self.ends = each, heads, []
        self.server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.server.getsockname()[1]
        Thread(self.accept)

    def accept(self):
        while True:
            s, _ = self.server.accept()
            s.settimeout(60)
            Thread(lambda s=s: self.ends.append(self.each(s, read_head(s) if self.heads else b"")))

    def open(self):
        return [end for end in self.ends if end.over is None]

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for end in self.ends:
            end.close()


class Others:
    """Calls that have nothing to do with a flood, ten a second, while it lasts: the worker must serve them."""

    def __init__(self, port, request=None):
        self.port, self.request, self.slowest, self.failed, self.count = port, request or get(more="connection: close\r\n"), 0.0, b"", 0

    async def __aenter__(self):
        self.task = asyncio.create_task(self.run())
        return self

    async def run(self):
        while True:
            began = time.monotonic()
            try:
                got = await call(self.port, self.request, 20)
            except Exception as error:
                got = repr(error).encode()
            self.slowest, self.count = max(self.slowest, time.monotonic() - began), self.count + 1
            if b" 200 " not in got[:20]:
                self.failed = got[:300]
            await asyncio.sleep(0.1)

    async def __aexit__(self, kind, *_):
        until = time.monotonic() + 4
        while kind is None and not self.count and time.monotonic() < until and not self.task.done():
            await asyncio.sleep(0.05)
        self.task.cancel()
        if kind is None:
            self.check()

    def check(self):
        holds(not self.failed, "a call beside the flood failed:", self.failed)
        holds(self.count and self.slowest < 3, f"a call beside the flood took {self.slowest:.2f} s ({self.count} calls)")


async def all_over(ends, earliest, latest, said=lambda: ""):
    """Each of the named ends is over between these seconds after its begin."""
    until = time.monotonic() + latest + 0.5
    while time.monotonic() < until and any(end.over is None for end in ends.values()):
        await asyncio.sleep(0.05)
    wrong = {
        name: f"{end.over:.2f} s" if end.over else f"never, {end.read} bytes read"
        for name, end in ends.items() if end.over is None or not earliest <= end.over <= latest
    }
    holds(not wrong, f"not over between {earliest} and {latest} s:", wrong, said())
