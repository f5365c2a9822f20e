"""Counts user-space instructions and allocations of one call through attache, HAProxy and nginx by callgrind; the result is the same on a busy machine.

    python3 benches/instructions --attache target/release/attache [--peers attache,haproxy,nginx] [--rows plain,log,routes,named,tls-up,tls-in,h2c,h2-in,rule,token,external] [--time]

Each proxy runs alone under valgrind, with one worker and all defaults. Eight kept connections send a GET with nine usual
fields in lockstep and read a response of 1 KiB; over HTTP/2, h2load sends the same on eight streams of each. The cost of the calls is the
difference between a run of `calls` and one of three times as many; so the start and the end of the process don't count. An allocation is a
call of the allocator from outside it.

With `--time` the proxies run without valgrind, all at once, and the rows take turns: `--rounds` times `calls` calls of each. The table
has the median of the proxy's CPU time per call in microseconds (`/proc/PID/task/*/schedstat`), for user code and kernel together, and the
median of its ratio to the first row of the same round. Compare only figures of the same table.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent))

import peers  # noqa: E402
from calls import read_answer, wait_for  # noqa: E402

REQUEST = (
    b"GET /1k HTTP/1.1\r\nHost: service.test\r\nUser-Agent: python-requests/2.32\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: application/json\r\nConnection: keep-alive\r\n"
    b"X-Request-Id: 6d0b0f5e-8ac7-4c35-9ac5-1f5be2fbdc2b\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    b"Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789\r\n\r\n"
)
TOKEN = b"Bearer abcdefghijklmnopqrstuvwxyz0123456789"
BODY = 1024
ROWS = {
    "plain": "HTTP/1.1 both sides",
    "log": "HTTP/1.1 with an access log to a file",
    "routes": "HTTP/1.1, the last of 5,000 hosts",
    "named": "HTTP/1.1 to a host that the request names",
    "tls-up": "TLS to the upstream",
    "tls-in": "TLS from the client",
    "h2c": "HTTP/2 both sides",
    "h2-in": "TLS and HTTP/2 from the client",
    "rule": "HTTP/1.1 with access rules",
    "token": "HTTP/1.1 with a token (JWT)",
    "external": "HTTP/1.1 with an authorizer that is asked by HTTP",
}
#: The scheme of the rows that h2load calls.
HTTP2 = {"h2c": "http", "h2-in": "https"}
#: nginx has no HTTP/2 towards upstreams; authorization is compared with the calls of the first row alone.
CANNOT = {("nginx", "h2c")} | {(peer, row) for peer in ("haproxy", "nginx") for row in ("named", "rule", "token", "external")}


def read_right_answer(connection):
    """Reads one response and checks that it is the right one."""
    head, body = read_answer(connection)
    if not head.startswith(b"HTTP/1.1 200") or len(body) != BODY:
        raise SystemExit(f"a wrong answer: {head!r}")


def talk_http2(port, calls, connections, scheme):
    """Makes the calls, eight streams at once on each connection."""
    lines = REQUEST.decode().strip().split("\r\n")[1:]
    headers = [f"-H{line}" for line in lines if not line.startswith(("Connection", "Host"))]
    command = ["h2load", "-t1", f"-c{connections}", "-m8", f"-n{calls}", *headers, f"{scheme}://127.0.0.1:{port}/1k"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    if f"{calls} succeeded" not in said:
        raise SystemExit(f"not every call succeeded:\n{said}")


def talk(port, calls, connections, encrypted, request):
    """Makes the calls on all connections in lockstep."""
    context = ssl._create_unverified_context()
    opened = []
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.settimeout(60)
        opened.append(context.wrap_socket(connection) if encrypted else connection)
    for _ in range(calls // connections):
        for connection in opened:
            connection.sendall(request)
        for connection in opened:
            read_right_answer(connection)
    for connection in opened:
        connection.close()


def make_calls(row, calls, options, folder, ports):
    """Makes the calls of a row."""
    if row in HTTP2:
        return talk_http2(ports[row], calls, options.connections, HTTP2[row])
    authorization = f"Bearer {peers.token(folder)}".encode() if row == "token" else TOKEN
    request = REQUEST.replace(TOKEN, authorization).replace(b"service.test", peers.host(row, ports).encode())
    talk(ports[row], calls, options.connections, row == "tls-in", request)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_us(process):
    """The CPU time of a process so far, in microseconds."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1000


def take_times(names, options, folder, ports):
    """Prints the CPU time of a call of each row through each proxy; the rows take turns."""
    lanes, processes, names_of_rows = {}, {}, options.rows.split(",")
    try:
        for row in names_of_rows:
            for peer in names:
                if (peer, row) in CANNOT:
                    continue
                # One process has all rows except those that change its whole config.
                kind = (peer, row if row in ("log", "routes") else "")
                if kind not in processes:
                    own = folder / "-".join(("own", *kind))
                    shutil.copytree(folder, own, ignore=shutil.ignore_patterns("own-*"))
                    held = peers.ports() | {name: port for name, port in ports.items() if name.startswith("upstream")}
                    with (own / "log").open("w") as text:
                        command = peers.command(peer, row, options.attache, own, held)
                        processes[kind] = (subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT), own, held)
                    wait_for(held[row], processes[kind][0], own / "log")
                lanes[row, peer] = (*processes[kind], [])
        for turn in range(options.rounds + 1):
            for (row, _), (process, own, held, times) in lanes.items():
                before = cpu_us(process)
                make_calls(row, options.calls, options, own, held)
                # The first round fills pools and caches.
                if turn:
                    times.append((cpu_us(process) - before) / options.calls)
    finally:
        for process, _, _ in processes.values():
            end(process)
    print(f"| µs of CPU of a call, and the ratio to the first row | {' | '.join(names)} |")
    print(f"| --- |{' ---: |' * len(names)}")
    for row in names_of_rows:
        cells = []
        for peer in names:
            times, first = (lanes.get((one, peer), ((), (), (), []))[3] for one in (row, names_of_rows[0]))
            ratio = statistics.median(a / b for a, b in zip(times, first)) if times and first else None
            cells.append(f"{statistics.median(times):.1f} ({ratio:.3f})" if ratio else "-")
        print(f"| {ROWS[row]} | {' | '.join(cells)} |", flush=True)


def count(peer, row, calls, options, folder, ports):
    """The instructions and allocations of one run from start to end."""
    out, log = folder / "callgrind", folder / f"{peer}.log"
    command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}.%p"]
    command += peers.command(peer, row, options.attache, folder, ports)
    with log.open("w") as text:
        process = subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT)
    try:
        wait_for(ports[row], process, log)
        time.sleep(1)
        make_calls(row, calls, options, folder, ports)
    finally:
        end(process)
    total = allocations = 0
    for file in folder.glob("callgrind.*"):
        text = file.read_text()
        found = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
        total += int(found[1]) if found else 0
        allocations += allocated(text)
        file.unlink()
    return total, allocations


ALLOCATOR = re.compile(r"(?:mi_)?(?:malloc|calloc|zalloc|realloc|memalign|posix_memalign)(?:_aligned)?$")


def allocated(text):
    """How often the allocator was called. Callgrind writes a function's name once and its number from then on."""
    names, inside, called, count = {}, False, False, 0
    for line in text.splitlines():
        kind, _, rest = line.partition("=")
        if kind in ("fn", "cfn"):
            number, _, name = rest.partition(" ")
            name = names.setdefault(number, name) if name else names.get(number, "")
            is_allocator = ALLOCATOR.match(name.partition("'")[0]) is not None
            if kind == "fn":
                inside = is_allocator or name.startswith("_mi_")
            else:
                called = is_allocator and not inside
        elif kind == "calls" and called:
            count += int(rest.split()[0])
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attache", required=True, type=os.path.abspath)
    parser.add_argument("--peers", default="attache,haproxy,nginx")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--calls", type=int, default=800)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    names = options.peers.split(",")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="instructions-"))
    ports = peers.ports()
    peers.certificates(folder)
    log = folder / "upstream.log"
    with log.open("w") as text:
        upstream = subprocess.Popen(peers.upstream(folder, ports), stdout=text, stderr=subprocess.STDOUT)
    try:
        wait_for(ports["upstream"], upstream, log)
        if options.time:
            return take_times(names, options, folder, ports)
        print(f"| user instructions of a call | {' | '.join(names)} |")
        print(f"| --- |{' ---: |' * len(names)}")
        for row in options.rows.split(","):
            firsts, seconds = [], []
            for peer in names:
                if (peer, row) in CANNOT:
                    firsts.append("-")
                    seconds.append("-")
                    continue
                few, many = (count(peer, row, n * options.calls, options, folder, ports) for n in (1, 3))
                a_call = [(more - less) / (2 * options.calls) for less, more in zip(few, many)]
                firsts.append(f"{a_call[0]:,.0f}")
                seconds.append(f"{a_call[1]:,.1f}")
            print(f"| {ROWS[row]} | {' | '.join(firsts)} |", flush=True)
            print(f"| {ROWS[row]}, allocations | {' | '.join(seconds)} |", flush=True)
    finally:
        upstream.terminate()
        upstream.wait()
        shutil.rmtree(folder, ignore_errors=True)


main()
