"""The program under attack, the servers behind it, and its clients on raw sockets."""

import asyncio
import os
import pathlib
import re
import signal
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "scripts"))

from free_port import free_port  # noqa: E402

PROMISES = []


class Broken(Exception):
    """A promise that doesn't hold."""


def promise(function):
    """Marks an attack: it is run with the path of the program, and raises what it found broken."""
    PROMISES.append(function)
    return function


def holds(condition, *said):
    if not condition:
        raise Broken(" ".join(str(part) for part in said))


class Attache:
    """A running program. `$NAME` in its config is a free port, the same one for the same name. `env` is added to its environment."""

    def __init__(self, binary, config, workers=2, env=None, **ports):
        self.env = {**os.environ, **(env or {})}
        self.binary, self.folder = binary, pathlib.Path(tempfile.mkdtemp(prefix="promises-"))
        self.ports, self.process, self.others = {"METRICS": free_port(), **ports}, None, []
        self.file, self.log = self.folder / "attache.yaml", self.folder / "log"
        self.write(f"admin: off\nmetrics: 127.0.0.1:$METRICS\nworkers: {workers}\n" + config)

    def filled(self, text):
        text = text.replace("$FOLDER", str(self.folder))
        return re.sub(r"\$([A-Z]+)", lambda name: str(self[name[1]]), text)

    def write(self, text):
        self.text = text
        new = self.file.with_suffix(".new")
        new.write_text(self.filled(text))
        new.replace(self.file)

    def change(self, old, new):
        holds(old in self.text, "the test is wrong:", old)
        self.write(self.text.replace(old, new))

    def __getitem__(self, name):
        return self.ports.setdefault(name, free_port())

    async def start(self, ready=True, stdout=None):
        with open(self.log, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.binary, "run", "-c", str(self.file), env=self.env, stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout or log, stderr=log)
        while ready and b" 200 " not in (await self.get("/readyz"))[:20]:
            holds(self.process.returncode is None, "it ended at its start:", self.said())
            await asyncio.sleep(0.02)
        return self

    async def __aenter__(self):
        return await self.start()

    async def __aexit__(self, *_):
        for pid in [self.process.pid, *self.others]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        await self.process.wait()

    async def get(self, path):
        try:
            return await call(self["METRICS"], f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        except OSError:
            return b""

    async def metric(self, start):
        lines = (await self.get("/metrics")).decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def signal(self, name):
        os.kill(self.process.pid, getattr(signal, "SIG" + name))

    async def ended(self, within):
        """The exit code and how long it took."""
        began = time.monotonic()
        try:
            code = await asyncio.wait_for(self.process.wait(), within)
        except asyncio.TimeoutError:
            raise Broken(f"it has not ended after {within} s: {self.said()}") from None
        return code, time.monotonic() - began

    def said(self):
        return self.log.read_text(errors="replace")[-3000:]

    def memory(self):
        """Memory that no file stands behind, in KiB."""
        return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text())[1])


async def head(reader):
    """A head, and nothing at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def call(to, data, within=10):
    """Sends bytes and returns all that comes until the end, and `b"RESET"` behind it if that was a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    writer.write(data)
    got = b""
    try:
        # Not `wait_for`: before Python 3.12 it may swallow the end of the task that waits.
        async with asyncio.timeout(within):
            while more := await reader.read(65536):
                got += more
    except ConnectionResetError:
        got += b"RESET"
    finally:
        writer.transport.abort()
    return got


def get(path="/", more="", version="1.1"):
    return f"GET {path} HTTP/{version}\r\nhost: h\r\n{more}\r\n".encode()


class Server:
    """Does `each(reader, writer)` with each connection."""

    def __init__(self, each):
        self.each, self.port, self.server, self.open = each, free_port(), None, set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.one, "127.0.0.1", self.port)
        return self

    async def one(self, reader, writer):
        self.open.add(writer)
        try:
            await self.each(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def __aexit__(self, *_):
        self.server.close()
        for writer in list(self.open):
            writer.transport.abort()


def answering(body="ok", note=None):
    """Answers each request; `body` may be a function of the head."""
    async def each(reader, writer):
        while data := await head(reader):
            if note is not None:
                note.append(data)
            said = (body(data) if callable(body) else body).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
            await writer.drain()
    return each


async def silent(reader, writer):
    """Reads and says nothing."""
    while await reader.read(65536):
        pass
