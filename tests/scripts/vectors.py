"""Facts about HTTP/1.1 and the PROXY protocol as bytes, each with what a strict recipient does: takes it (a 200 of the server behind) or refuses it.

Refused is whatever RFC 9112 and RFC 9110 call invalid, and whatever two recipients are known to read in two ways; what the RFCs leave open is left
out. For the PROXY protocol: haproxy.org, proxy-protocol.txt, sections 2.1 and 2.2.
"""

import socket
import struct
import time

HOST = b"Host: a\r\n"
END = b"\r\n"


def get(line=b"GET / HTTP/1.1", fields=HOST):
    return line + b"\r\n" + fields + END


def post(fields, body=b"", host=HOST):
    return b"POST / HTTP/1.1\r\n" + host + fields + END + body


def chunked(body):
    return post(b"Transfer-Encoding: chunked\r\n", body)


CHUNK = b"1\r\nZ\r\n0\r\n\r\n"
HTTP1 = [
    # name, bytes, is it taken?
    ("a GET", get(), True),
    ("an empty line before it (2.2)", b"\r\n" + get(), True),
    ("a host with a port", get(fields=b"Host: a:80\r\n"), True),
    ("absolute-form (3.2.2)", get(b"GET http://a/x HTTP/1.1"), True),
    ("a length", post(b"Content-Length: 3\r\n", b"abc"), True),
    ("chunks", chunked(CHUNK), True),
    ("chunks in capitals (5.1)", post(b"TRANSFER-ENCODING: CHUNKED\r\n", CHUNK), True),
    ("a chunk extension (7.1.1)", chunked(b"1;x=y\r\nZ\r\n0\r\n\r\n"), True),
    ("a trailer (7.1.2)", chunked(b"1\r\nZ\r\n0\r\nX: y\r\n\r\n"), True),
    ("leading zeros of a chunk's size", chunked(b"001\r\nZ\r\n0\r\n\r\n"), True),
    ("bytes above 0x7f in a value (5.5)", get(fields=HOST + b"X: \xe4\r\n"), True),
    ("an empty value", get(fields=HOST + b"X:\r\n"), True),
    ("blanks around a value", get(fields=HOST + b"X: \t y \t\r\n"), True),
    ("no host (3.2)", get(fields=b""), False),
    ("two hosts (3.2)", get(fields=HOST + b"Host: b\r\n"), False),
    ("the same host twice", get(fields=HOST + HOST), False),
    ("a host with a blank", get(fields=b"Host: a b\r\n"), False),
    ("a host with a path", get(fields=b"Host: a/b\r\n"), False),
    ("a host with user information", get(fields=b"Host: u@a\r\n"), False),
    ("a host with a comma", get(fields=b"Host: a, b\r\n"), False),
    ("a blank before the colon (5.1)", get(fields=HOST + b"X : y\r\n"), False),
    ("a folded field (5.2)", get(fields=HOST + b"X: y\r\n z\r\n"), False),
    ("a blank before the first field (2.2)", get(fields=b" X: y\r\n" + HOST), False),
    ("a field without a colon", get(fields=HOST + b"X\r\n"), False),
    ("a field without a name", get(fields=HOST + b": y\r\n"), False),
    ("a name with a blank", get(fields=HOST + b"X Y: z\r\n"), False),
    ("a name above 0x7f", get(fields=HOST + b"X\xe4: z\r\n"), False),
    ("NUL in a value (5.5)", get(fields=HOST + b"X: y\0z\r\n"), False),
    ("a bare CR in a value (2.2)", get(fields=HOST + b"X: y\rz\r\n"), False),
    ("lines that end in LF", get().replace(b"\r\n", b"\n"), False),
    ("a bare LF between two fields", get(fields=b"X: y\n" + HOST), False),
    ("two blanks in the line (3)", get(b"GET  / HTTP/1.1"), False),
    ("a tab in the line", get(b"GET\t/ HTTP/1.1"), False),
    ("a blank behind the version", get(b"GET / HTTP/1.1 "), False),
    ("a version that is none", get(b"GET / HTTQ/1.1"), False),
    ("a version in small letters (2.3)", get(b"GET / http/1.1"), False),
    ("HTTP/2.0 in words", get(b"GET / HTTP/2.0"), False),
    ("HTTP/1.10", get(b"GET / HTTP/1.10"), False),
    ("no version", get(b"GET /"), False),
    ("a method with a bracket (RFC 9110, 9.1)", get(b"G(T / HTTP/1.1"), False),
    ("a target without a slash (3.2)", get(b"GET x HTTP/1.1"), False),
    ("a target with a fragment (3.2)", get(b"GET /#x HTTP/1.1"), False),
    ("a target with NUL", get(b"GET /\0 HTTP/1.1"), False),
    ("GET * (3.2.4)", get(b"GET * HTTP/1.1"), False),
    ("CONNECT without a port (3.2.3)", get(b"CONNECT a HTTP/1.1"), False),
    ("two empty lines before it", b"\r\n\r\n" + get(), False),
    ("length and chunks (6.1)", post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", CHUNK), False),
    ("chunks and length (6.1)", post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", CHUNK), False),
    ("two lengths (6.3)", post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), False),
    ("a list of two lengths (6.3)", post(b"Content-Length: 3, 4\r\n", b"abcd"), False),
    ("a length with a sign", post(b"Content-Length: +3\r\n", b"abc"), False),
    ("a length below zero", post(b"Content-Length: -3\r\n", b"abc"), False),
    ("a length in hexadecimal", post(b"Content-Length: 0x3\r\n", b"abc"), False),
    ("a length with a letter", post(b"Content-Length: 3a\r\n", b"abc"), False),
    ("an empty length", post(b"Content-Length:\r\n", b""), False),
    ("a length of more than 64 bits", post(b"Content-Length: 18446744073709551619\r\n", b"abc"), False),
    ("a coding that isn't known (6.1)", post(b"Transfer-Encoding: x\r\n", CHUNK), False),
    ("chunked, twice in a list (6.1)", post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNK), False),
    ("chunked, twice in lines", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNK), False),
    ("chunked is not the last (6.3)", post(b"Transfer-Encoding: chunked, identity\r\n", CHUNK), False),
    ("chunked behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", CHUNK), False),
    ("chunked in quotes", post(b"Transfer-Encoding: \"chunked\"\r\n", CHUNK), False),
    ("chunked behind a comma", post(b"Transfer-Encoding: ,chunked\r\n", CHUNK), False),
    ("chunked before a tab", post(b"Transfer-Encoding: chunked\t\r\n", CHUNK), False),
    ("chunked with a blank before the colon", post(b"Transfer-Encoding : chunked\r\n", CHUNK), False),
    ("chunked in HTTP/1.0 (6.1)", chunked(CHUNK).replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    ("a chunk's size with 0x", chunked(b"0x1\r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk's size with a sign", chunked(b"+1\r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk's size behind a blank", chunked(b" 1\r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk's size before a blank", chunked(b"1 \r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk's size of more than 64 bits", chunked(b"10000000000000001\r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk's size that is none", chunked(b"g\r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk's line that ends in LF", chunked(b"1\nZ\r\n0\r\n\r\n"), False),
    ("a bare LF in a chunk's extension", chunked(b"1;x\ny\r\nZ\r\n0\r\n\r\n"), False),
    ("an extension without a name", chunked(b"1;\r\nZ\r\n0\r\n\r\n"), False),
    ("a chunk longer than its size", chunked(b"1\r\nZZ\r\n0\r\n\r\n"), False),
    ("a chunk that ends in LF", chunked(b"1\r\nZ\n0\r\n\r\n"), False),
    ("a trailer that ends in LF", chunked(b"1\r\nZ\r\n0\r\nX: y\n\r\n"), False),
    ("a trailer with a blank before the colon", chunked(b"1\r\nZ\r\n0\r\nX : y\r\n\r\n"), False),
]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 1000, 80)
IPV6 = bytes([32, 1, 13, 184] + [0] * 11 + [1]) * 2 + struct.pack("!HH", 1000, 80)


def v2(command, family, body):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


PROXY = [(name, header + get(), taken) for name, header, taken in [
    ("version 1, IPv4", b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n", True),
    ("version 1, IPv6", b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n", True),
    ("version 1, UNKNOWN", b"PROXY UNKNOWN\r\n", True),
    ("version 1, UNKNOWN with addresses", b"PROXY UNKNOWN ffff:f::1 ffff::2 65535 65535\r\n", True),
    ("version 2, IPv4", v2(0x21, 0x11, IPV4), True),
    ("version 2, IPv6", v2(0x21, 0x21, IPV6), True),
    ("version 2, LOCAL", v2(0x20, 0x00, b""), True),
    ("version 2, LOCAL with what is to be skipped", v2(0x20, 0x11, IPV4), True),
    ("version 2, with TLVs", v2(0x21, 0x11, IPV4 + b"\x02\x00\x03abc\x04\x00\x02\0\0"), True),
    ("version 2, UNSPEC", v2(0x21, 0x00, b""), True),
    ("no header", b"", False),
    ("version 1 without CR", b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\n", False),
    ("version 1 without ports", b"PROXY TCP4 192.0.2.1 192.0.2.2\r\n", False),
    ("version 1 with an address of the other family", b"PROXY TCP4 2001:db8::1 192.0.2.2 1000 80\r\n", False),
    ("version 1 with a port above 65535", b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 65536\r\n", False),
    ("version 1 with an address that is none", b"PROXY TCP4 192.0.2.256 192.0.2.2 1000 80\r\n", False),
    ("version 1 with another family", b"PROXY UDP4 192.0.2.1 192.0.2.2 1000 80\r\n", False),
    ("version 1 with two blanks", b"PROXY TCP4  192.0.2.1 192.0.2.2 1000 80\r\n", False),
    ("version 1 in small letters", b"proxy tcp4 192.0.2.1 192.0.2.2 1000 80\r\n", False),
    ("version 1 of more than 107 bytes", b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80" + b" " * 80 + b"\r\n", False),
    ("version 2, too short for its addresses", v2(0x21, 0x11, IPV4[:8]), False),
    ("version 3", v2(0x31, 0x11, IPV4), False),
    ("version 2 with another command", v2(0x22, 0x11, IPV4), False),
]]


def taken(port, data, wait=2.0):
    """Whether the first answer is a 200. Nobody waits for more than the vector has: silence is no answer, and none that was taken."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(wait)
        answer = b""
        try:
            client.sendall(data)
            while b"\r\n" not in answer:
                part = client.recv(65536)
                if not part:
                    break
                answer += part
        except OSError:
            pass
    return answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))


def judge(vectors, port, who):
    """How many were judged right, in words, and how many were not. What differs is tried once more, on a machine that may be busy."""
    wrong = [name for name, data, good in vectors if taken(port, data) != good]
    if wrong:
        time.sleep(1)
        wrong = [name for name, data, good in vectors if name in wrong and taken(port, data, 10.0) != good]
    for name in wrong:
        print(f"    {who} judges in another way: {name}", flush=True)
    return f"{len(vectors) - len(wrong)} of {len(vectors)}", len(wrong)
