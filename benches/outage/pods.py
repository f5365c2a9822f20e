"""The pods of the tables: they serve HTTP/1, WebSocket, HTTP/2 and gRPC, or echo bytes; and the ways in which they end."""
import asyncio, base64, hashlib, re, socket, ssl, subprocess, tempfile

import h2.config, h2.connection, h2.events, h2.exceptions, hyperframe.frame

DIR = tempfile.mkdtemp()
HOSTS = [f"127.0.1.{n}" for n in range(1, 11)]
PORT = 8000
# A stream and a WebSocket carry one message each tenth of a second.
MESSAGES, GAP = 10, .1


def certificates():
    """Two independent authorities. Each has a server certificate; the good one also has certificates for another service and for ourselves."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for authority in ("good", "bad"):
        subprocess.run(["openssl", "req", "-x509", *key, "-keyout", f"{DIR}/{authority}-ca.key", "-out", f"{DIR}/{authority}-ca.pem", "-days", "9",
                        "-subj", f"/CN={authority} authority"], capture_output=True, check=True)
    for name, authority, host in (("good", "good", "svc"), ("bad", "bad", "svc"), ("other", "good", "other"), ("client", "good", "client")):
        at = f"{DIR}/{name}"
        open(f"{at}.names", "w").write(f"subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n")
        for command in (["req", "-new", *key, "-keyout", f"{at}.key", "-out", f"{at}.csr", "-subj", f"/CN={host}"],
                        ["x509", "-req", "-in", f"{at}.csr", "-CA", f"{DIR}/{authority}-ca.pem", "-CAkey", f"{DIR}/{authority}-ca.key", "-CAcreateserial",
                         "-out", f"{at}.pem", "-days", "9", "-extfile", f"{at}.names"]):
            subprocess.run(["openssl", *command], capture_output=True, check=True)


def tls(name, mutual=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{DIR}/{name}.pem", f"{DIR}/{name}.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if mutual:
        context.load_verify_locations(f"{DIR}/good-ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def black_hole(host):
    """A socket whose queue is full: further SYNs are dropped."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, PORT))
    listener.listen(0)
    held = [listener]
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((host, PORT))
        held.append(client)
    return held


class Pod:
    """The connections of one server process. `echo`: it sends all bytes back. `other`: it is another service, whose responses are wrong."""
    def __init__(self, host, echo=False, context=None, other=False):
        self.host, self.echo, self.context, self.other = host, echo, context, other
        self.draining, self.open, self.goaways = False, set(), []

    async def start(self):
        self.server = await asyncio.start_server(self.handle, self.host, PORT, ssl=self.context, backlog=1024, reuse_address=True)
        return self

    def drain(self):
        """As after SIGTERM: it sends `connection: close` and GOAWAY (with the last stream that it processes), and no longer listens."""
        self.draining = True
        self.server.close()
        for goaway in list(self.goaways):
            goaway()

    def end(self, reset=False):
        """As when its process exits: connections are closed or reset."""
        self.server.close()
        for writer in list(self.open):
            writer.transport.abort() if reset else writer.close()

    async def handle(self, reader, writer):
        self.open.add(writer)
        try:
            first = await reader.read(65536)
            if self.echo:
                await self.serve_echo(reader, writer, first)
            elif first.startswith(b"PRI "):
                await self.serve_http2(reader, writer, first)
            else:
                await self.serve_http1(reader, writer, first)
        except (OSError, ssl.SSLError, h2.exceptions.ProtocolError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def serve_echo(self, reader, writer, first):
        while first:
            writer.write(b"WRONG" if self.other else first)
            await writer.drain()
            first = await reader.read(65536)

    async def serve_http1(self, reader, writer, buffer):
        while True:
            while b"\r\n\r\n" not in buffer:
                piece = await reader.read(65536)
                if not piece:
                    return
                buffer += piece
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            key = re.search(rb"sec-websocket-key: *(\S+)", head, re.I)
            if key:
                return await self.serve_websocket(reader, writer, key[1])
            length = re.search(rb"content-length: *(\d+)", head, re.I)
            missing = int(length[1]) - len(buffer) if length else 0
            while missing > 0:
                piece = await reader.read(65536)
                if not piece:
                    return
                buffer += piece
                missing -= len(piece)
            buffer = buffer[int(length[1]):] if length else buffer
            closing = b"connection: close\r\n" if self.draining else b""
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + closing + b"\r\n" + (b"no" if self.other else b"ok"))
            await writer.drain()
            if closing:
                return

    async def serve_websocket(self, reader, writer, key):
        """Small masked frames come back unmasked (RFC 6455 section 5.2)."""
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept + b"\r\n\r\n")
        while True:
            head = await reader.readexactly(6)
            payload = await reader.readexactly(head[1] & 127)
            payload = bytes(byte ^ head[2 + n % 4] for n, byte in enumerate(payload))
            writer.write(bytes([head[0], len(payload)]) + payload)
            await writer.drain()
            if head[0] & 15 == 8:
                return

    async def serve_http2(self, reader, writer, piece):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        last, refused_from, paths, tasks = [0], [2 ** 31], {}, []

        def goaway():
            if refused_from[0] == 2 ** 31:
                refused_from[0] = last[0] + 1
                writer.write(hyperframe.frame.GoAwayFrame(last_stream_id=last[0]).serialize())

        def finish(stream):
            connection.send_headers(stream, [("grpc-status", "12" if self.other else "0")], end_stream=True)
            writer.write(connection.data_to_send())

        async def messages(stream):
            try:
                for _ in range(MESSAGES):
                    connection.send_data(stream, b"\0\0\0\0\0")
                    writer.write(connection.data_to_send())
                    await asyncio.sleep(GAP)
                finish(stream)
            except h2.exceptions.ProtocolError:
                pass
        self.goaways.append(goaway)
        try:
            while piece:
                for event in connection.receive_data(piece):
                    if isinstance(event, h2.events.RequestReceived):
                        if self.draining:
                            goaway()
                        if event.stream_id < refused_from[0]:
                            last[0] = event.stream_id
                        paths[event.stream_id] = dict(event.headers)[":path"]
                    elif isinstance(event, h2.events.DataReceived):
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded) and event.stream_id < refused_from[0]:
                        connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                        if paths.pop(event.stream_id, "") == "/stream":
                            tasks.append(asyncio.ensure_future(messages(event.stream_id)))
                        else:
                            connection.send_data(event.stream_id, b"\0\0\0\0\0")
                            finish(event.stream_id)
                writer.write(connection.data_to_send())
                await writer.drain()
                piece = await reader.read(65536)
        finally:
            self.goaways.remove(goaway)
            for task in tasks:
                task.cancel()
