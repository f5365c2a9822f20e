"""TLS without its end: tls_cut_server.py HOST PORT CERTIFICATE KEY

GET /whole    Content-Length, all of it, cut without close_notify
GET /short    Content-Length, half of it, cut without close_notify
GET /cut      body until the end of the connection, cut without close_notify
GET /chunked  half of a chunked body, cut without close_notify
GET /ended    body until the end of the connection, ended with close_notify
"""
import socket
import ssl
import sys
import threading

host, port, certificate, key = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)

ANSWERS = {
    "/whole": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
    "/short": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8\r\n\r\nbody",
    "/cut": b"HTTP/1.0 200 OK\r\n\r\nbody",
    "/chunked": b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n",
    "/ended": b"HTTP/1.0 200 OK\r\n\r\nbody",
}


def serve(plain):
    try:
        tls = context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=True)
        head = b""
        while b"\r\n\r\n" not in head:
            more = tls.recv(4096)
            if not more:
                return
            head += more
        path = head.split(b" ")[1].decode()
        tls.sendall(ANSWERS[path])
        if path == "/ended":
            tls.unwrap()
        else:
            # The FIN of TCP alone: no alert before it.
            tls.shutdown(socket.SHUT_WR)
        tls.close()
    except (OSError, ssl.SSLError):
        pass


with socket.create_server((host, port)) as server:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
