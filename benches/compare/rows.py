"""The rows of the table: a job, its load, and what is counted."""
import dataclasses
import pathlib
import re
import subprocess
import tempfile
import typing

from namespaces import UPSTREAM
from processes import LOAD_CORE, on_core
from proxies import Job, Ports, hosts


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one round: the units of work, and the latencies in milliseconds if they were measured."""
    done: float
    p50: typing.Optional[float] = None
    p99: typing.Optional[float] = None
    p999: typing.Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Row:
    title: str
    job: Job
    #: (port, seconds, tools) -> Result
    load: typing.Callable
    unit: str = "request"
    quick: bool = False


def run(command, seconds):
    """Runs a load tool on its core and returns its output. If it fails, the comparison ends."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 4 + 60, preexec_fn=on_core(LOAD_CORE))
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def wrk(connections, scheme="http", path="/", host=None):
    def load(port, seconds, tools):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", tools["latency.lua"]]
        if host:
            command += ["-H", f"Host: {host}"]
        url = f"{scheme}://127.0.0.1:{port}{path}"
        inside = tools["namespaces"].get(port)
        if inside:
            command, url = inside.run(command), f"http://{inside.upstream}:{UPSTREAM}{path}"
        out = run(command + [url], seconds)
        if "Non-2xx" in out or "Socket errors" in out:
            raise SystemExit(f"errors under load on {port}:\n{out}")
        p50, p99, p999 = (float(n) / 1000 for n in re.search(r"latency (\S+) (\S+) (\S+)", out).groups())
        return Result(int(re.search(r"(\d+) requests in", out).group(1)), p50, p99, p999)
    return load


def bulk(connections):
    def load(port, seconds, tools):
        requests = wrk(connections, path="/mib")(port, seconds, tools)
        return dataclasses.replace(requests, done=requests.done * 1.0)
    return load


def h2load(connections, streams, scheme="http", h1=False):
    def load(port, seconds, _):
        command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", "-D", str(max(1, round(seconds))), "--warm-up-time=0"]
        out = run(command + (["--h1"] if h1 else []) + [f"{scheme}://127.0.0.1:{port}/"], seconds)
        done, failed = (int(n) for n in re.search(r"(\d+) succeeded, (\d+) failed", out).groups())
        if failed or not done:
            raise SystemExit(f"errors under load on {port}:\n{out}")
        return Result(done)
    return load


def handshakes(port, seconds, _):
    """Every request has a new connection; no TLS session is resumed."""
    count = max(200, round(300 * seconds))
    out = run(["h2load", "-t1", "--h1", f"-c{count}", f"-n{count}", f"--rate={max(50, count // max(1, round(seconds)))}",
               f"https://127.0.0.1:{port}/"], seconds)
    done = int(re.search(r"(\d+) succeeded", out).group(1))
    if done < count:
        raise SystemExit(f"{count - done} of {count} handshakes failed on {port}:\n{out}")
    return Result(done)


def fixed_rate(rate, connections):
    """Latency at a rate far from saturation, from h2load's log of every request."""
    def load(port, seconds, _):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            run(["h2load", "-t1", "--h1", f"-c{connections}", f"--rps={rate / connections}", "-D", str(max(1, round(seconds))),
                 f"--log-file={log}", f"http://127.0.0.1:{port}/"], seconds)
            rows = [line.split("\t") for line in log.read_text().splitlines()]
        times = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
        if not times:
            raise SystemExit(f"no answer at a fixed rate on {port}")
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
        return Result(len(times), at(0.5), at(0.99), at(0.999))
    return load


def own(command, connections, *more, scale=1):
    """One of the clients of `attache-load`."""
    def load(port, seconds, tools):
        out = run([tools["load"], command, f"127.0.0.1:{port}", "--connections", str(connections),
                   "--seconds", str(seconds), *more], seconds)
        return Result(int(out.split()[-1]) / scale)
    return load


MANY = Job("http", "http", routes=5000)

ROWS = [
    Row("HTTP/1.1, 64 connections", Job("http", "http"), wrk(64), quick=True),
    Row("HTTP/1.1, 4 connections", Job("http", "http"), wrk(4)),
    Row("the same, access log to a file", Job("http", "http", access_log=True), wrk(64)),
    Row("TLS origination", Job("http", "https"), wrk(64), quick=True),
    Row("TLS termination", Job("https", "http"), wrk(64, "https"), quick=True),
    Row("TLS in, mutual TLS out", Job("https", "mtls"), wrk(64, "https")),
    Row("mutual TLS from one proxy to another, both together", Job("http", "mtls", pair=True), wrk(64)),
    Row("h2c to h2c, 16 connections of 8 streams", Job("h2c", "h2c"), h2load(16, 8), quick=True),
    Row("TLS h2 to HTTP/1.1, 16 connections of 8 streams", Job("h2", "http"), h2load(16, 8, "https")),
    Row("gRPC unary, 16 connections", Job("h2c", "h2c"), own("unary", 16), "call"),
    Row("gRPC stream, 16 connections", Job("h2c", "h2c"), own("stream", 16), "message"),
    Row("WebSocket echo, 64 connections", Job("http", "upgrade"), own("ping", 64, "--upgrade"), "message"),
    Row("raw TCP, 1 KiB messages, 64 connections", Job("tcp", "tcp"), own("ping", 64), "message", quick=True),
    Row("raw TCP, bulk", Job("tcp", "source"), own("drain", 1, scale=1 << 20), "MiB"),
    Row("HTTP/1.1, bodies of 1 MiB", Job("http", "http"), bulk(4), "MiB"),
    Row("TLS handshakes", Job("https", "http"), handshakes, "handshake"),
    Row("1,000 endpoints", Job("http", "http", endpoints=1000), wrk(64)),
    Row("5,000 routes", MANY, wrk(64, host=hosts(MANY)[-1])),
    Row("HTTP/1.1, redirected to the proxy (transparent)", Job("http", "http", transparent=True), wrk(64)),
    Row("HTTP/1.1, two workers on both cores", Job("http", "http", workers=2), wrk(64)),
    Row("1,000 requests a second, 16 connections", Job("http", "http"), fixed_rate(1000, 16), quick=True),
]


def direct(row):
    """The port that the same load uses without a proxy, for the rows that show latency."""
    return Ports.HTTP if row.job == Job("http", "http") else None


LATENCY_LUA = """
done = function(summary, latency, requests)
  io.write(string.format("latency %d %d %d\\n", latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""

