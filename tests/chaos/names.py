"""A DNS server (RFC 1035) that answers A queries from a table."""

import asyncio
import socket
import struct


class Names(asyncio.DatagramProtocol):
    """`table` maps a name without its last dot to addresses; any other name and kind has an empty answer."""

    def __init__(self, ttl):
        self.table, self.ttl = {}, ttl

    async def start(self, port):
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        return self

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, address):
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1: at + 1 + size].decode())
            at += 1 + size
        question = query[12: at + 5]
        kind = struct.unpack("!H", query[at + 1: at + 3])[0]
        found = self.table.get(".".join(labels).lower(), []) if kind == 1 else []
        answers = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, self.ttl, 4) + socket.inet_aton(ip) for ip in found)
        head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0)
        self.transport.sendto(head + question + answers, address)
