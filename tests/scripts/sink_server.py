"""Counts the bytes of request bodies and answers with their number: sink_server.py HOST PORT"""
import socket
import sys
import threading


def serve(connection):
    stream = connection.makefile("rb", buffering=1 << 20)
    while True:
        line = stream.readline()
        if not line:
            return
        length, chunked, total = 0, False, 0
        while (header := stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "transfer-encoding":
                chunked = "chunked" in value
        if chunked:
            while size := int(stream.readline().split(b";")[0], 16):
                total += size
                left = size + 2
                while left:
                    left -= len(stream.read(min(left, 1 << 20)))
            stream.readline()
        while not chunked and total < length:
            part = len(stream.read(min(length - total, 1 << 20)))
            if not part:
                return
            total += part
        body = str(total).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
