"""Floods at the edges: gRPC-Web, tunnels in HTTP/2, TLS key updates, `idle_timeout` beside frames that carry nothing, and what the platform
gives: the SPIFFE agent, Kubernetes' API server, the app's probes."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

from floods import CHUNKED, drains
from floods_http2 import ACK, DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, WIDE, Speaker, frame, of_upstream, read_preface, text
from floods_services import CLOSE, HTTP, floods, http2_floods
from hose import End, Hose, Others, Thread, all_over, connected, repeated
from world import Attache, Server, answering, call, free_port, get, head, holds, promise, silent

CONFIG = """
shutdown: { drain_timeout: 1s }
listeners:
  out: { bind: "127.0.0.1:$OUT", $MORE to: app }
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  app: { address: "$SCHEME://127.0.0.1:$APP", $TIMEOUT }
  good: { address: "http://127.0.0.1:$GOOD" }
"""
GRPC = frame(HEADERS, END_HEADERS, 1, b"\x88\x00" + text(b"content-type") + text(b"application/grpc"))
MESSAGE = b"\0\0\0\x04\0" + bytes(1024)


def config(scheme="http", timeout="timeout: 2s", more=""):
    return CONFIG.replace("$SCHEME", scheme).replace("$TIMEOUT", timeout).replace("$MORE", more)


def http2(first, blocks, pause=0.0, data_on=None):
    """An upstream that speaks HTTP/2 without being asked."""
    def each(s, _):
        read_preface(s)
        return Speaker(s, frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0) + first, blocks, pause, data_on)
    return Hose(each, heads=False)


def grpc_web(kind, body=b"", more=""):
    lines = f"content-type: application/grpc-web{kind}\r\n{more}"
    return f"POST /p.S/M HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode() + body


@promise
async def a_grpc_web_answer_that_never_ends_is_cut_at_its_callers_deadline(binary):
    """Binary, and as base64, which attache writes piece by piece. docs/resilience.md: of a gRPC stream `grpc-timeout` is the limit."""
    apps = [http2(GRPC, None, data_on=1) for _ in range(4)]
    async with Server(answering()) as good:
        listeners = "".join(f'  l{n}: {{ bind: "127.0.0.1:$L{"X" * n}", routes: [{{ to: u{n}, grpc_web: true }}] }}\n' for n in range(4))
        upstreams = "".join(f'  u{n}: "h2c://127.0.0.1:{app.port}"\n' for n, app in enumerate(apps))
        text = f'listeners:\n  other: {{ bind: "127.0.0.1:$OTHER", to: good }}\n{listeners}upstreams:\n  good: "http://127.0.0.1:$GOOD"\n{upstreams}'
        async with Attache(binary, text, workers=1, GOOD=good.port) as attache:
            async with Others(attache["OTHER"]):
                more = "content-length: 0\r\ngrpc-timeout: 2S\r\n" + CLOSE
                ends = {f"{kind}, {n}": End(connected(attache["L" + "X" * n]), grpc_web(kind, more=more))
                        for n, kind in enumerate(("", "-text", "+proto", "-text+proto"))}
                await all_over(ends, 1.9, 4, attache.said)
            wrong = {name: end.head[:60] for name, end in ends.items() if b" 200 " not in end.head[:20] or end.read < 1_000_000}
            holds(not wrong, "no answer flowed:", wrong)
            holds(attache.memory() < 200 * 1024, f"{attache.memory()} KiB")
    for app in apps:
        await app.__aexit__()


@promise
async def a_grpc_web_request_that_never_ends_keeps_nobody_back(binary):
    """The upload is decoded piece by piece: pieces that are large, small, and each padded."""
    bodies = {
        "messages": ("", MESSAGE), "base64": ("-text", base64.b64encode(MESSAGE * 3)), "groups of four": ("-text", b"AAAA"),
        "padded groups": ("-text", b"AA=="),
    }

    def chunk(block):
        return b"%x\r\n%s\r\n" % (len(block), block)

    async with http2(b"", b"", pause=1) as app, Server(answering()) as good:
        text = config("h2c", "timeout: off", "routes: [{ to: app, grpc_web: true }],")
        async with Attache(binary, text, workers=1, APP=app.port, GOOD=good.port) as attache:
            async with Others(attache["OTHER"]):
                ends = {name: End(connected(attache["OUT"]), grpc_web(kind, more="transfer-encoding: chunked\r\n"), repeated(chunk(block)))
                        for name, (kind, block) in bodies.items()}
                await asyncio.sleep(2)
            holds(attache.memory() < 200 * 1024, f"{attache.memory()} KiB")
            await drains(attache, ends)


@promise
async def frames_that_carry_nothing_are_no_bytes_of_a_body(binary):
    """docs/resilience.md: a stream is cut 1 to 1.25 `idle_timeout` after its last byte. These frames come below the rate of a flood."""
    kinds = {name: block for name, (first, block) in of_upstream().items()
             if block and name not in ("103", "CONTINUATION", "empty CONTINUATION", "GOAWAY", "RST_STREAM of nothing")}
    begin = frame(HEADERS, END_HEADERS, 1, b"\x88") + frame(DATA, 0, 1, b"x")
    for pause in (0.0, 0.02):
        servers = {name: http2(begin, repeated(block) if not pause else block, pause) for name, block in kinds.items()}
        async with Server(answering()) as good:
            listeners = "".join(f'  l{n}: {{ bind: "127.0.0.1:$L{"X" * n}", to: u{n} }}\n' for n in range(len(kinds)))
            upstreams = "".join(f'  u{n}: {{ address: "h2c://127.0.0.1:{server.port}", timeout: 30s, idle_timeout: 1s, retry: off }}\n'
                                for n, server in enumerate(servers.values()))
            whole = f'listeners:\n  other: {{ bind: "127.0.0.1:$OTHER", to: good }}\n{listeners}upstreams:\n  good: ' + \
                f'{{ address: "http://127.0.0.1:$GOOD" }}\n{upstreams}'
            async with Attache(binary, whole, workers=1, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = {f"{name}, a pause of {pause}": End(connected(attache["L" + "X" * n]), get(more=CLOSE))
                            for n, name in enumerate(kinds)}
                    # A flood may be ended sooner.
                    await all_over(ends, 0 if not pause else 0.9, 3, attache.said)
        for server in servers.values():
            await server.__aexit__()


CONNECT = b"\x02" + text(b"CONNECT") + b"\x00" + text(b":protocol") + text(b"websocket") + b"\x86\x04" + text(b"/ws") + b"\x01" + text(b"h") + \
    b"\x00" + text(b"sec-websocket-version") + text(b"13")


def websocket(floods, block):
    """A server of WebSockets that floods, or says a word every tenth of a second."""
    def each(s, asked):
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", asked)[1]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        first = b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: " + accept + b"\r\n\r\n"
        return End(s, first, block if floods else b".", 0 if floods else 0.1)
    return Hose(each)


@promise
async def a_flood_through_a_tunnel_in_http2_holds_up_nothing(binary):
    """RFC 8441: the other direction continues, another stream of the connection is answered, and the drain ends the connection."""
    block = repeated(b"x" * 4096)
    for server_floods in (False, True):
        async with websocket(server_floods, block) as app, Server(answering()) as good:
            more = 'routes: [{ match: { path: /ok }, to: good }],'
            async with Attache(binary, config(timeout="timeout: 60s", more=more), workers=1, APP=app.port, GOOD=good.port) as attache:
                async with Others(attache["OTHER"]):
                    ends = {}
                    for n in range(3):
                        first = PREFACE + WIDE + frame(HEADERS, END_HEADERS, 1, CONNECT)
                        ends[f"tunnel {n}"] = Speaker(connected(attache["OUT"]), first, None, data_on=1)
                    await asyncio.sleep(0.5)
                    beside = b"\x82\x86\x04" + text(b"/ok") + b"\x01" + text(b"h")
                    for end in ends.values():
                        end.words.append((3, frame(HEADERS, END_HEADERS | 1, 3, beside)))
                    await asyncio.sleep(2)
                now = time.monotonic()
                wrong = {name: (end.answered, end.over) for name, end in ends.items() if {1, 3} - {stream for stream, _ in end.answered}}
                holds(not wrong, "streams without an answer:", wrong, attache.said())
                still = [f"{now - end.heard:.2f} s" for end in [*ends.values(), *app.ends] if now - end.heard > 1.5]
                holds(not still and len(app.ends) == 3, "a direction stands still:", still, len(app.ends))
                holds(attache.memory() < 200 * 1024, f"{attache.memory()} KiB")
                await drains(attache, ends)


def certificate():
    """A folder with a certificate of its own authority for `localhost`."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="promises-"))
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,URI:spiffe://shop/web"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=a",
                    "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", folder / "key", "-out", folder / "crt"], check=True, capture_output=True)
    return folder


class Updating:
    """An end of TLS 1.3 by OpenSSL that asks for new keys as fast as it can: a line `K` each."""

    def __init__(self, arguments, first=b""):
        self.began, self.over = time.monotonic(), None
        self.process = subprocess.Popen(["openssl", *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.first, self.read = first, 0
        Thread(self.feed)
        Thread(self.wait)

    def feed(self):
        time.sleep(0.3)
        os.write(self.process.stdin.fileno(), self.first or b"K\n")
        while self.over is None:
            # One read of OpenSSL's has one command.
            os.write(self.process.stdin.fileno(), b"K\n")
            time.sleep(0.0002)

    def wait(self):
        self.process.wait()
        self.over = time.monotonic() - self.began

    def close(self):
        self.process.kill()


@promise
async def new_keys_without_an_end_end_their_connection(binary):
    """TLS 1.3 key updates (RFC 8446 section 4.6.3), which a peer may send at any time, and ask for ours in return; by clients and upstreams."""
    folder = certificate()
    whole = f"""
shutdown: {{ drain_timeout: 1s }}
listeners:
  out: {{ bind: "127.0.0.1:$OUT", tls: {{ certificate: {folder}/crt, key: {folder}/key }}, to: good }}
  raw: {{ bind: "127.0.0.1:$RAW", protocol: tcp, tls: {{ certificate: {folder}/crt, key: {folder}/key }}, to: silent }}
  tls: {{ bind: "127.0.0.1:$TLS", to: app }}
  other: {{ bind: "127.0.0.1:$OTHER", to: good }}
upstreams:
  good: {{ address: "http://127.0.0.1:$GOOD" }}
  silent: "tcp://127.0.0.1:$SILENT"
  app: {{ address: "https://127.0.0.1:$APP", timeout: 20s, retry: off, tls: {{ ca: {folder}/crt }} }}
"""
    async with Server(answering()) as good, Server(silent) as mute:
        async with Attache(binary, whole, workers=1, GOOD=good.port, SILENT=mute.port) as attache:
            server = Updating(["s_server", "-accept", f"127.0.0.1:{attache['APP']}", "-cert", folder / "crt", "-key", folder / "key", "-tls1_3"])
            clients = {}
            try:
                # OpenSSL takes a moment to listen.
                while b"unreachable" in (got := await call(attache["TLS"], get(more=CLOSE), 25)) or b"refused" in got:
                    await asyncio.sleep(0.1)
                holds(b" 502 " in got[:20] and b"KeyUpdate" in got, "of an upstream:", got)
                async with Others(attache["OTHER"]):
                    for n in range(2):
                        for name, first in (("nothing said", b""), ("a head begun", b"GET / HTTP/1.1\r\nhost: h\r\n")):
                            for to in ("OUT", "RAW"):
                                opening = ["s_client", "-connect", f"127.0.0.1:{attache[to]}", "-tls1_3"]
                                clients[f"{name} to {to}, {n}"] = Updating(opening, first)
                    await all_over(clients, 0, 8, attache.said)
                holds(attache.memory() < 100 * 1024, f"{attache.memory()} KiB")
                await drains(attache, {})
            finally:
                for end in [server, *clients.values()]:
                    end.close()
                shutil.rmtree(folder)


class Agent:
    """A SPIFFE agent on a Unix socket that answers with frames for ever."""

    def __init__(self, first, block):
        self.folder = tempfile.mkdtemp(prefix="promises-")
        self.path, self.ends = f"{self.folder}/agent", []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen(16)
        self.first, self.block = first, repeated(block)
        Thread(self.accept)

    def accept(self):
        while True:
            s, _ = self.server.accept()
            self.ends.append(End(s, self.first, self.block))

    def close(self):
        self.server.close()
        for end in self.ends:
            end.close()
        shutil.rmtree(self.folder)




@promise
async def an_agent_that_floods_delays_neither_a_reload_nor_calls_nor_an_end(binary):
    """docs/tls.md: a running attache continues to serve, whatever happens to the agent."""
    plain = """
shutdown: { drain_timeout: 1s }
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
"""
    spiffe = '  app: { address: "https://127.0.0.1:1", tls: { spiffe: true, peers: "spiffe://shop/web" } }\n'
    kinds = {name: how for name, how in http2_floods().items() if name in ("PING", "SETTINGS", "large unknown frames", "103", "empty DATA")}
    kinds["bytes"] = (b"", b"\xff")

    async def one(name, how, good):
        agent = Agent(*how)
        env = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{agent.path}"}
        try:
            async with Attache(binary, plain, workers=1, GOOD=good.port, env=env) as attache:
                async with Others(attache["OTHER"]), Others(attache["METRICS"], get("/readyz", CLOSE)):
                    attache.write(attache.text + spiffe)
                    attache.signal("HUP")
                    until = time.monotonic() + 20
                    while time.monotonic() < until and not await attache.metric("attache_config_reloads_total{"):
                        await asyncio.sleep(0.1)
                    holds(await attache.metric("attache_config_reloads_total{"), f"{name}: the reload has no end:", attache.said())
                    await asyncio.sleep(2)
                holds(agent.ends, f"{name}: the agent was never asked")
                holds(attache.memory() < 100 * 1024, f"{name}: {attache.memory()} KiB")
                await drains(attache, {})
        finally:
            agent.close()

    async with Server(answering()) as good:
        await asyncio.gather(*(one(name, how, good) for name, how in kinds.items()))


@promise
async def an_api_server_that_floods_is_not_believed_and_keeps_nobody_back(binary):
    """docs/discovery.md: while Kubernetes' API server can't be reached, the last good answer stays in use; here there is no such answer."""
    folder = certificate()
    shutil.copy(folder / "crt", folder / "ca.crt")
    (folder / "token").write_text("t")
    (folder / "namespace").write_text("shop")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    lists = {name: how for name, how in HTTP.items()}
    lists["events"] = (CHUNKED, b'1a\r\n{"type":"BOOKMARK"}      \n\r\n')
    whole = """
shutdown: { drain_timeout: 1s }
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
  out: { bind: "127.0.0.1:$OUT", to: app }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
  app: { address: "kubernetes://orders.shop:http" }
"""

    async def one(name, how):
        async def each(reader, writer):
            # TLS by asyncio, whose writes wait for the reader.
            await head(reader)
            writer.write(how[0])
            block = repeated(how[1])[:1 << 16]
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(block)
                    await writer.drain()
                    # Where the buffer never fills, nothing else would run in this process.
                    await asyncio.sleep(0)

        server = await asyncio.start_server(each, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port), "ATTACHE_SERVICE_ACCOUNT": str(folder)}
        async with Server(answering()) as good:
            began = time.monotonic()
            async with Attache(binary, whole, workers=1, GOOD=good.port, env=env) as attache:
                holds(time.monotonic() - began < 14, f"{name}: ready after {time.monotonic() - began:.1f} s")
                async with Others(attache["OTHER"]), Others(attache["METRICS"], get("/readyz", CLOSE)):
                    got = await call(attache["OUT"], get(more=CLOSE), 20)
                    holds(b" 50" in got[:20], f"{name}: {got[:60]}")
                    await asyncio.sleep(2)
                holds(attache.memory() < 150 * 1024, f"{name}: {attache.memory()} KiB")
                await drains(attache, {})
        server.close()

    try:
        await asyncio.gather(*(one(*kind) for kind in lists.items()))
    finally:
        shutil.rmtree(folder)


@promise
async def an_app_that_floods_its_probes_is_unhealthy_in_their_time(binary):
    """docs/kubernetes.md: the app's probes are asked of attache, with their `timeoutSeconds`."""
    services = {f"http {name}": floods(*how) for name, how in HTTP.items()}
    services.update({f"grpc {name}": floods(*how, heads=False) for name, how in http2_floods().items()})
    port = free_port()
    probes = {f"/{n}": ({"httpGet": {"path": "/", "port": service.port}} if name.startswith("http") else {"grpc": {"port": service.port}})
              | {"timeoutSeconds": 1} for n, (name, service) in enumerate(services.items())}
    probes["/tcp"] = {"tcpSocket": {"port": free_port()}, "timeoutSeconds": 1}
    env = {"ATTACHE_APP_PROBES": json.dumps({"port": port, "probes": probes}), "POD_IP": "127.0.0.1"}
    plain = """
shutdown: { drain_timeout: 1s }
listeners:
  other: { bind: "127.0.0.1:$OTHER", to: good }
upstreams:
  good: { address: "http://127.0.0.1:$GOOD" }
"""
    try:
        async with Server(answering()) as good:
            async with Attache(binary, plain, workers=1, GOOD=good.port, env=env) as attache:
                async with Others(attache["OTHER"]), Others(attache["METRICS"], get("/readyz", CLOSE)):
                    asked = {name: End(connected(port), get(f"/{n}", CLOSE)) for n, name in enumerate(services)}
                    await all_over(asked, 0, 3, attache.said)
                # Where a head has come, the answer may be known before its body ends.
                passes = {"http chunks", "http small chunks", "http a length"}
                wrong = {name: end.head[:40] for name, end in asked.items() if b" 200 " in end.head[:20] and name not in passes}
                holds(not wrong, "a probe passes:", wrong)
                # The port of the probes itself.
                ends = {f"{n}, {reads}": End(connected(port), b"", repeated(block), reads=reads) for reads in (True, False)
                        for n, block in enumerate((get("/tcp"), b"a: b\r\n", b"x", b"\xff"))}
                async with Others(attache["OTHER"]):
                    await asyncio.sleep(1.5)
                holds(attache.memory() < 150 * 1024, f"{attache.memory()} KiB")
                await drains(attache, {})
                for end in ends.values():
                    end.close()
    finally:
        for service in services.values():
            await service.__aexit__()
