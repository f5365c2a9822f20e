"""A DNS server for one name. It returns the addresses that the name had some seconds ago."""
import asyncio, socket, struct


class Zone(asyncio.DatagramProtocol):
    def __init__(self, hosts, ttl=1):
        self.hosts, self.ttl = list(hosts), ttl

    async def serve(self, port):
        self.transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        return self

    def close(self):
        self.transport.close()

    def later(self, seconds, gone, new):
        """From then on the name has one address instead of another."""
        def change():
            self.hosts = [new if host == gone else host for host in self.hosts]
        asyncio.get_running_loop().call_later(seconds, change)

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, client):
        end = query.index(b"\0", 12) + 5
        question, kind = query[12:end], query[end - 4:end - 2]
        answers = [b"\xc0\x0c\0\x01\0\x01" + struct.pack("!IH", self.ttl, 4) + socket.inet_aton(host) for host in self.hosts] if kind == b"\0\x01" else []
        head = query[:2] + b"\x85\x80" + struct.pack("!HHHH", 1, len(answers), 0, 0)
        self.transport.sendto(head + question + b"".join(answers), client)
