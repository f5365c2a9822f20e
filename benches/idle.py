#!/usr/bin/env python3
"""Measures the memory of client connections: without a request so far, idle after a request, and with a request on all of them at once (the peak).

    python3 benches/idle.py --attache target/release/attache [--connections 5000]

All connections are opened at once. Then they make a call one after the other, and all are idle. Then all send a request before the
first response is read, and all are idle again. The upstream is nginx. The figures are the anonymous memory of the process
(`/proc/PID/smaps_rollup`), minus that before the first connection, divided by the number of connections. The peak is the
largest of measurements every 5 ms. It needs nginx, and three times as many file descriptors as connections (`ulimit -n`).
"""

import argparse
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from calls import free_port, read_answer, wait_for

REQUEST = (
    b"GET /1k HTTP/1.1\r\nHost: service.test\r\nUser-Agent: python-requests/2.32\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: application/json\r\nConnection: keep-alive\r\n\r\n"
)


class Memory:
    """The anonymous memory of a process, and its maximum."""

    def __init__(self, process):
        self.rollup = pathlib.Path(f"/proc/{process.pid}/smaps_rollup")
        self.empty = self.peak = self.now()
        threading.Thread(target=self.watch, daemon=True).start()

    def now(self):
        return int(re.search(r"Anonymous:\s+(\d+)", self.rollup.read_text())[1])

    def watch(self):
        try:
            while True:
                self.peak = max(self.peak, self.now())
                time.sleep(0.005)
        except (OSError, TypeError):
            pass

    def say(self, what, kib, connections):
        print(f"| {what} | {(kib - self.empty) * 1024 / connections:,.0f} | {(kib - self.empty) / connections:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attache", required=True)
    parser.add_argument("--connections", type=int, default=5000)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="idle-"))
    port, upstream = free_port(), free_port()
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 100000000; {paths}
  server {{ listen 127.0.0.1:{upstream} backlog=4096; location / {{ return 200 "{"x" * 1024}"; }} }} }}
""")
    # No request is refused: each gets its own connection to the upstream.
    (folder / "attache.yaml").write_text(f"""
workers: 1
admin: off
metrics: off
listeners: {{ outbound: {{ bind: "127.0.0.1:{port}", to: app }} }}
upstreams:
  app: {{ address: "http://127.0.0.1:{upstream}", circuit_breaker: {{ max_requests: 100000, max_pending: 100000, max_connections: 100000 }} }}
""")
    processes = [subprocess.Popen(["/usr/sbin/nginx", "-c", str(folder / "nginx.conf")])]
    try:
        with (folder / "log").open("w") as log:
            processes.append(subprocess.Popen([options.attache, "run", "-c", str(folder / "attache.yaml")], stderr=log))
        wait_for(upstream, processes[0], folder / "error.log")
        wait_for(port, processes[1], folder / "log")
        # Memory that only the start needed is released after a second.
        time.sleep(3)
        memory = Memory(processes[1])
        print(f"| each of {options.connections:,} connections | bytes | KiB |\n| --- | ---: | ---: |")
        opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(options.connections)]
        time.sleep(1)
        memory.say("silent", memory.now(), options.connections)
        for connection in opened:
            connection.settimeout(60)
            connection.sendall(REQUEST)
            read_answer(connection)
        memory.say("the most until each has made a call", memory.peak, options.connections)
        time.sleep(6)
        memory.say("idle after a call", memory.now(), options.connections)
        for connection in opened:
            connection.sendall(REQUEST)
        statuses = {}
        for connection in opened:
            status = read_answer(connection)[0][9:12].decode()
            statuses[status] = statuses.get(status, 0) + 1
        memory.say("a call on all of them at once", memory.peak, options.connections)
        time.sleep(6)
        memory.say("idle again", memory.now(), options.connections)
        print(f"answers: {', '.join(f'{count} of {status}' for status, count in sorted(statuses.items()))}")
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


main()
