"""A rolling restart under load, seen by attache through DNS or through EndpointSlices.

rolling_restart.py ATTACHE dns|slices [PODS]: prints one JSON object. It needs a network namespace of its own (`unshare --net`), since pods have
addresses here. A DNS server (TTL 5 s) and an API server say what Kubernetes would say at each moment:

  a new pod is ready 0.3 s after its begin and is named from then on
  an old pod is terminating at once: DNS doesn't name it any more, its slice says `ready: false, serving: true, terminating: true`
  2 s later it accepts no connections, 5 s later it is killed with whatever runs on it

Eight clients call without a pause, eight take streams of 4 s. A stream that was begun in time ends well; one that is begun on a pod that is
terminating already is cut.
"""

import asyncio
import json
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

TTL, READY, ACCEPTS, GRACE, STREAM = 5, 0.3, 2, 5, 4
API, DNS, PORT, METRICS = 6443, 5353, 8080, 15090
seen = {"requests": 0, "failed": 0, "streams": 0, "streams_cut": 0, "begun_on_terminating": 0, "why": []}


class Pod:
    """One replica: an HTTP server at an address of its own."""

    def __init__(self, number):
        self.ip, self.number = f"10.77.0.{number}", number
        self.terminating, self.writers = False, set()

    async def start(self):
        subprocess.run(["ip", "addr", "add", f"{self.ip}/32", "dev", "lo"], check=True)
        self.server = await asyncio.start_server(self.serve, self.ip, PORT)

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen["begun_on_terminating"] += self.terminating
                if b"/stream" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    for _ in range(STREAM * 10):
                        writer.write(b"5\r\nhello\r\n")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                    writer.write(b"0\r\n\r\n")
                else:
                    close = b"connection: close\r\n" if self.terminating else b""
                    writer.write(b"HTTP/1.1 200 OK\r\n" + close + b"content-length: 2\r\n\r\nok")
                    if close:
                        break
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def end(self):
        await asyncio.sleep(ACCEPTS)
        self.server.close()
        await asyncio.sleep(GRACE - ACCEPTS)
        for writer in list(self.writers):
            writer.transport.abort()


class Cluster:
    """What the API server and DNS say."""

    def __init__(self):
        self.pods, self.version, self.watches = [], 100, []

    def slice(self):
        def endpoint(pod):
            conditions = {"ready": not pod.terminating, "serving": True, "terminating": pod.terminating}
            ref = {"kind": "Pod", "namespace": "shop", "name": f"orders-{pod.number}", "uid": f"uid-{pod.number}"}
            return {"addresses": [pod.ip], "conditions": conditions, "targetRef": ref, "nodeName": "node-1"}

        labels = {"kubernetes.io/service-name": "orders"}
        metadata = {"name": "orders-x7", "namespace": "shop", "resourceVersion": str(self.version), "labels": labels}
        ports = [{"name": "http", "protocol": "TCP", "port": PORT}]
        kind = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1"}
        endpoints = [endpoint(pod) for pod in self.pods]
        return {**kind, "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}

    def changed(self):
        self.version += 1
        for queue in self.watches:
            queue.put_nowait({"type": "MODIFIED", "object": self.slice()})

    async def api(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "authorization: Bearer secret\r\n" in head.lower().replace("bearer", "Bearer"), head
        if "watch=1" not in head:
            kind = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1"}
            body = {**kind, "metadata": {"resourceVersion": str(self.version)}, "items": [self.slice()]}
            text = json.dumps(body).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
            await writer.drain()
            return writer.close()
        queue = asyncio.Queue()
        self.watches.append(queue)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            line = json.dumps(await queue.get()).encode() + b"\n"
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()

    def answer(self, question):
        """The A records of what isn't terminating; nothing for other types."""
        end = question.index(b"\0", 12) + 5
        addresses = [pod.ip for pod in self.pods if not pod.terminating] if question[end - 3] == 1 else []
        head = question[:2] + b"\x85\x80\0\1" + struct.pack(">H", len(addresses)) + b"\0\0\0\0"
        record = lambda ip: b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", TTL, 4) + socket.inet_aton(ip)
        return head + question[12:end] + b"".join(map(record, addresses))


class Dns(asyncio.DatagramProtocol):
    def __init__(self, cluster):
        self.cluster = cluster

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(self.cluster.answer(data), address)


async def exchange(port, path, connection):
    """One request on a connection that is kept; the body's bytes."""
    if connection is None:
        connection = await asyncio.open_connection("127.0.0.1", port)
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nhost: orders\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if not head.startswith("http/1.1 200"):
        raise ValueError(head.split("\r\n")[0] + str([line for line in head.split("\r\n") if "reason" in line]))
    if "content-length: " in head:
        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
    else:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    if "connection: close" in head:
        writer.close()
        return None
    return connection


async def client(port, path, count, failed, stop):
    connection = None
    while not stop.is_set():
        seen[count] += 1
        try:
            connection = await exchange(port, path, connection)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            seen[failed] += 1
            seen["why"].append(f"{path}: {error}"[:160])
            connection = None


async def main(attache, how, pods):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp())
    subject = ["-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder / "key"]
    subprocess.run(["openssl", "req", "-x509", *key, *subject, "-out", folder / "ca.crt"], check=True, capture_output=True)
    (folder / "token").write_text("secret\n")
    address = {"dns": f"http://orders.shop.:{PORT}", "slices": "kubernetes+http://orders.shop:http"}[how]
    (folder / "attache.yaml").write_text(
        f"listeners: {{ out: {{ bind: '127.0.0.1:15001', to: orders }} }}\n"
        f"dns: {{ servers: ['127.0.0.1:{DNS}'], min_ttl: 1s }}\nadmin: off\nmetrics: '127.0.0.1:{METRICS}'\n"
        f"upstreams: {{ orders: {{ address: '{address}' }} }}\n"
    )
    cluster = Cluster()
    for number in range(1, pods + 1):
        pod = Pod(number)
        await pod.start()
        cluster.pods.append(pod)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "ca.crt", folder / "key")
    server = await asyncio.start_server(cluster.api, "127.0.0.1", API, ssl=tls)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Dns(cluster), local_addr=("127.0.0.1", DNS))
    place = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(API)}
    environment = {**os.environ, **place, "ATTACHE_SERVICE_ACCOUNT": str(folder)}
    log = open(folder / "log", "w+")
    command = [attache, "run", "--config", str(folder / "attache.yaml")]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                await exchange(15001, "/", None)
                break
            except (OSError, ValueError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
        stop, ending = asyncio.Event(), []
        load = [("/", "requests", "failed")] * 8 + [("/stream", "streams", "streams_cut")] * 8
        clients = [asyncio.create_task(client(15001, *one, stop)) for one in load]
        await asyncio.sleep(1)
        for old in list(cluster.pods):
            new = Pod(old.number + 100)
            await new.start()
            await asyncio.sleep(READY)
            cluster.pods.append(new)
            cluster.changed()
            await asyncio.sleep(0.5)
            old.terminating = True
            cluster.changed()
            ending.append(asyncio.create_task(old.end()))
            await asyncio.sleep(0.7)
        await asyncio.gather(*ending)
        cluster.pods = [pod for pod in cluster.pods if not pod.terminating]
        cluster.changed()
        await asyncio.sleep(STREAM)
        stop.set()
        await asyncio.gather(*clients)
    finally:
        process.terminate()
        process.wait()
    log.seek(0)
    trouble = [line for line in log if " WARN " in line or " ERROR " in line]
    server.close()
    print(json.dumps({"by": how, "pods": pods, **seen, "why": sorted(set(seen["why"]))[:5], "log": trouble[:5]}))


if __name__ == "__main__":
    begun = time.monotonic()
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 4))
    os._exit(0)
