"""HTTP/1 calls on kept sockets, for the measurements in this folder."""

import pathlib
import re
import socket
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests/scripts"))

from free_port import free_port  # noqa: E402, F401


def wait_for(port, process, log):
    """Waits until the process listens. If it has ended, its log is printed."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit(f"{process.args[-1]} does not listen:\n{log.read_text()[-800:]}")


def read_answer(connection):
    """Reads one response with a length: its head and its body."""
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return head, body
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit(f"closed early: {answer[:200]!r}")
        answer += piece
