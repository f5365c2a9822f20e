"""The same bytes to other people's readers of HTTP/1, directly and through attache: readers.py ATTACHE FOLDER... [--mutated N] [--seed N]

Node (llhttp) and nginx each stand on two ports: one that clients reach directly, and one behind attache. Every input goes to both. What comes
through attache must be what the same reader sees directly, in the same order: method, target, fields and body. Where they differ, attache must
have refused. What differs is tried again with more patience before it counts.

FOLDERs hold the inputs, one a file; N more are made of them by mutation. Each ends with a request that both must see as its own if they are in step.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from free_port import free_port

# What a proxy adds, removes or writes anew: of one connection (RFC 9110 section 7.6.1), of who called, of framing.
OURS = {
    "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade",
    "content-length", "expect", "http2-settings", "via", "forwarded", "x-request-id", "traceparent", "tracestate", "max-forwards",
}
OURS_BEGIN = ("x-forwarded-", "x-attache-", "x-envoy-")
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b"\t", b" ", b"\x0b", b"\xa0", b"\xff", b":", b",", b";", b"0", b"3", b"-", b"+", b"0x", b"_",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"chunked",
    b"Connection: close\r\n", b"Connection: keep-alive, x\r\n", b"Host: b\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"X: y\r\n",
    b"0\r\n\r\n", b"3\r\nabc\r\n", b"HTTP/1.0", b"HTTP/1.1", b"GET ", b"POST ", b"HEAD ", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"http://b", b"#", b"?", b"//", b"/../", b"%2f", b";x=\"", b"\"",
]

# Why a reader may end before attache does: it knows fewer methods and versions than RFC 9110 lets a proxy pass on, and ends its connection
# for what it does not serve. None of this reads the same bytes in another way.
MAY_REFUSE = {
    "node": ("HPE_INVALID_METHOD", "HPE_INVALID_VERSION", "CONNECT", "upgrade"),
    "nginx": ("client sent invalid method", "client sent TRACE method", "client sent CONNECT method", "client sent invalid request while"),
}

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error info; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  log_format direct escape=json '{{"key":"$remote_addr","method":"$request_method","url":"$request_uri","host":"$host","status":$status}}';
  log_format behind escape=json '{{"key":"$http_x_forwarded_for","method":"$request_method","url":"$request_uri","host":"$host","status":$status}}';
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000; keepalive_timeout 600s; merge_slashes off; lingering_timeout 1s; server_tokens off;
  server {{ listen 0.0.0.0:{direct} backlog=4096; access_log {folder}/nginx-direct direct; location / {{ return 200 "seen"; }} }}
  server {{ listen 127.0.0.1:{behind} backlog=4096; access_log {folder}/nginx-behind behind; location / {{ return 200 "seen"; }} }}
}}
"""

ATTACHE = """
admin: off
metrics: off
access_log: off
workers: 1
listeners:
  node: {{ bind: "127.0.0.1:{node}", protocol: http, to: node, http: {http} }}
  nginx: {{ bind: "127.0.0.1:{nginx}", protocol: http, to: nginx, http: {http} }}
upstreams:
  node: {{ address: "http://127.0.0.1:{node_behind}", retry: off }}
  nginx: {{ address: "http://127.0.0.1:{nginx_behind}", retry: off }}
"""
# The target as it came: another form of it is no difference between readers.
HTTP = "{ forwarded: replace, path: { dot_segments: false, decode_unreserved: false, parameters: keep } }"


class Readers:
    """Servers, attache in front of them, and what they saw by the client's address."""

    def __init__(self, attache):
        self.folder = tempfile.mkdtemp(prefix="readers-")
        self.ports = {name: free_port() for name in ("node-direct", "node-behind", "nginx-direct", "nginx-behind", "node", "nginx")}
        self.seen, self.ids, self.processes = collections.defaultdict(list), {}, []
        # Why a reader ended a connection of a client that reached it directly.
        self.refused = {}
        self.attache, self.read = attache, {"direct": 0, "behind": 0}

    async def start(self):
        ports = {name.replace("-", "_"): number for name, number in self.ports.items()}
        here = pathlib.Path(__file__).parent
        node = await asyncio.create_subprocess_exec(
            "node", here / "readers.js", str(ports["node_direct"]), str(ports["node_behind"]), stdout=subprocess.PIPE, limit=1 << 24)
        self.processes.append(node)
        for _ in range(2):
            await node.stdout.readline()
        self.reading = asyncio.create_task(self.read_node(node.stdout))
        nginx = pathlib.Path(self.folder, "nginx.conf")
        nginx.write_text(NGINX.format(folder=self.folder, direct=ports["nginx_direct"], behind=ports["nginx_behind"]))
        self.processes.append(await asyncio.create_subprocess_exec(
            "/usr/sbin/nginx", "-p", self.folder, "-c", nginx, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        config = pathlib.Path(self.folder, "attache.yaml")
        config.write_text(ATTACHE.format(http=HTTP, **ports))
        log = open(pathlib.Path(self.folder, "log"), "wb")
        self.processes.append(await asyncio.create_subprocess_exec(self.attache, "run", "-c", config, stdout=log, stderr=log))
        for name in self.ports:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", self.ports[name])).close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            else:
                raise SystemExit(f"nothing listens for {name}: {pathlib.Path(self.folder, 'log').read_text()}")

    async def read_node(self, lines):
        while line := await lines.readline():
            said = json.loads(line)
            if "refused" in said:
                self.refused["node", said["key"]] = said["refused"]
            elif "body" in said:
                self.ids.pop(said["id"])["body"] = said["body"]
            else:
                self.ids[said["id"]] = said
                self.seen[f"node-{said['side']}", said["key"]].append(said)

    def read_nginx(self):
        """What nginx refused has a status above 399, and is no message. Why, its log of errors says."""
        for line in pathlib.Path(self.folder, "error").read_text(errors="replace").splitlines():
            if found := re.search(r"\d#\d+: \*\d+ (client sent [^,]*).*, client: (127[.0-9]+)", line):
                self.refused["nginx", found[2]] = found[1]
        for side in ("direct", "behind"):
            with open(pathlib.Path(self.folder, f"nginx-{side}"), errors="replace") as log:
                log.seek(self.read[side])
                lines, self.read[side] = log.read().splitlines(), log.tell()
            for line in lines:
                said = json.loads(line)
                if said["status"] < 400:
                    self.seen[f"nginx-{side}", said["key"]].append(said)

    async def end(self):
        for process in reversed(self.processes):
            process.terminate()
            await process.wait()
        shutil.rmtree(self.folder)

    async def send(self, name, address, data, patience):
        """Sends, reads until the end, and ends its own side when nothing comes any more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[name], local_addr=(address, 0))
        try:
            writer.write(data)
            await writer.drain()
            for wait in (patience, 2 * patience):
                try:
                    while await asyncio.wait_for(reader.read(65536), wait):
                        pass
                    break
                except asyncio.TimeoutError:
                    if writer.can_write_eof():
                        writer.write_eof()
        except OSError:
            pass
        finally:
            writer.transport.abort()


def sentinel(number):
    return b"GET /sentinel-%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % number


def fields(message):
    """Those that no proxy writes anew, by name; those that `Connection` names are of one connection, too."""
    pairs = list(zip(message["fields"][::2], message["fields"][1::2]))
    own = {name.strip().lower() for key, value in pairs if key.lower() == "connection" for name in value.split(",")}
    def is_ours(name):
        plain = name.replace("_", "-")
        return plain in OURS or plain.startswith(OURS_BEGIN) or name in own or name == "host"
    return sorted(((name.lower(), value.strip(" \t")) for name, value in pairs if not is_ours(name.lower())), key=lambda pair: pair[0])


def target(message):
    """In origin-form, and the host that it is for."""
    url = message["url"]
    host = message.get("host")
    if host is None:
        host = next((value for name, value in zip(message["fields"][::2], message["fields"][1::2]) if name.lower() == "host"), "")
    scheme, found, rest = url.partition("://")
    if found and scheme.lower() in ("http", "https"):
        cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        host, url = rest[:cut], rest[cut:]
        url = url if url.startswith("/") else "/" + url
    return url, host.strip(" \t").lower()


def same(one, other):
    """`one` came through attache, `other` directly."""
    (url, host), (their_url, their_host) = target(one), target(other)
    # attache writes the upstream's own name where the client has none, or names attache's address.
    hosts = host == their_host or host.startswith("127.0.0.1") or not their_host
    if (one["method"], url) != (other["method"], their_url) or not hosts:
        return False
    if "fields" not in one:
        return True
    bodies = one.get("body"), other.get("body")
    return fields(one) == fields(other) and (None in bodies or bodies[0] == bodies[1])


def differs(through, direct, why, may_refuse):
    """The first message that came through attache and is not, in order, one that the reader sees directly, and what is wrong with it."""
    rest = list(direct)
    for message in through:
        at = next((at for at, other in enumerate(rest) if same(message, other)), None)
        if at is not None:
            del rest[:at + 1]
        elif rest:
            return message, "the reader sees another one directly"
        elif not any(why.startswith(known) for known in may_refuse):
            return message, f"the reader has refused it directly: {why or 'silently'}"
    return None


def mutated(inputs, random):
    data = bytearray(random.choice(inputs))
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        at, kind = random.randrange(len(data) + 1), random.randrange(6)
        if kind == 0:
            data[at:at] = random.choice(TOKENS)
        elif kind == 1:
            del data[at:at + random.choice((1, 1, 2, 8))]
        elif kind == 2 and at < len(data):
            data[at] = random.randrange(256)
        elif kind == 3:
            other = random.choice(inputs)
            data[at:] = other[random.randrange(len(other) + 1):]
        elif kind == 4:
            line = data.find(b"\n", at) + 1
            data[line:line] = random.choice(TOKENS)
        else:
            length = random.choice((1, 4, 30))
            data[at:at] = data[at:at + length]
    return bytes(data[:8000])


def address(number):
    return f"127.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


async def play(readers, numbered, patience, jobs=16):
    """Sends every input to all; returns those for which something differs, with what."""
    gate = asyncio.Semaphore(jobs)

    async def one(number, data):
        async with gate:
            whole = data + sentinel(number)
            # One after the other: an address is in use only once.
            await asyncio.gather(*(readers.send(name, address(number), whole, patience)
                                   for name in ("node-direct", "nginx-direct", "node", "nginx")))

    await asyncio.gather(*(one(number, data) for number, data in numbered))
    await asyncio.sleep(4 * patience)
    readers.read_nginx()
    found = []
    for number, data in numbered:
        key = address(number)
        sides = {
            "node": (readers.seen["node-behind", key], readers.seen["node-direct", key]),
            "nginx": (readers.seen["nginx-behind", key], readers.seen["nginx-direct", key]),
        }
        for reader, (through, direct) in sides.items():
            why = readers.refused.get((reader, key), "")
            if not why and any("Upgrade" in one.get("fields", ()) for one in direct):
                why = "upgrade"
            if wrong := differs(through, direct, why, MAY_REFUSE[reader]):
                found.append((data, reader, wrong, direct))
    return found


def inputs(folders):
    """Those of the fuzz target `request` begin with a byte of its own."""
    for folder in folders:
        for file in sorted(pathlib.Path(folder).iterdir()):
            data = file.read_bytes()
            yield data[1:] if pathlib.Path(folder).name == "request" else data


async def main():
    parser = argparse.ArgumentParser(description="The same bytes to other readers of HTTP/1, directly and through attache.")
    parser.add_argument("attache")
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--mutated", type=int, default=1000, help="how many inputs are made of those of the folders (1000)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    seeds = [data for data in inputs(given.folders) if data]
    all_inputs = seeds + [mutated(seeds, random) for _ in range(given.mutated)]
    readers = Readers(os.path.abspath(given.attache))
    await readers.start()
    number = 0

    async def round_of(some, patience):
        nonlocal number
        numbered = [(number + at, data) for at, data in enumerate(some)]
        number += len(some)
        return await play(readers, numbered, patience)

    found = []
    for at in range(0, len(all_inputs), 500):
        found += await round_of(all_inputs[at:at + 500], 0.2)
    messages = collections.Counter({side: sum(map(len, seen)) for side, seen in (
        (side, [seen for (name, _), seen in readers.seen.items() if name == side])
        for side in ("node-direct", "node-behind", "nginx-direct", "nginx-behind"))})
    # On a busy machine a reader may not have come to the end in time.
    for patience in (1, 5):
        if found:
            found = await round_of(list(dict.fromkeys(data for data, *_ in found)), patience)
    await readers.end()
    for data, reader, (message, wrong), direct in found:
        print(f"{reader} sees a message through attache, and {wrong}:\n  sent     {data!r}\n  through  {message}\n  directly {direct}")
    print(f"{len(all_inputs)} inputs; messages: " + ", ".join(f"{name} {count}" for name, count in messages.items())
          + f"; {len(found)} differences")
    return 1 if found or not all(messages.values()) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
