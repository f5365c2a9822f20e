"""The program under test: its config, its process, what it says of itself."""

import asyncio
import collections
import os
import pathlib
import re
import resource
import signal
import tempfile

WEB, ECHO, PROXY, METRICS, DNS = 15001, 15002, 15003, 15090, 5353
MAX_REQUESTS = 128

CONFIG = """
workers: 2
metrics: {{ bind: "127.0.0.1:{METRICS}" }}
access_log: {access_log}
shutdown: {{ drain_timeout: 5s }}
dns: {{ servers: ["127.0.0.1:{DNS}"], min_ttl: 200ms, timeout: 1s }}
listeners:
  web: {{ bind: "127.0.0.1:{WEB}", protocol: http, http: {{ header_timeout: {header} }}, to: app }}
  echo: {{ bind: "127.0.0.1:{ECHO}", protocol: tcp, to: echo }}
  proxy: {{ bind: "127.0.0.1:{PROXY}", protocol: http, to: internet }}
upstreams:
  app:
    address: [{app}]
    connect_timeout: {connect}
    timeout: {timeout}
    idle_timeout: {silence}
    retry: {{ attempts: 3, per_try_timeout: {silence} }}
    pool: {{ idle_timeout: 1s }}
    circuit_breaker: {{ max_requests: {MAX_REQUESTS}, max_pending: {MAX_REQUESTS} }}
    outlier_ejection: {{ base: 500ms, max: 1s, interval: 500ms }}
  echo: tcp://127.0.1.1:8081
  internet: {{ address: authority }}
"""

# prefix, labels, value; a label's value of attache's own holds no quotation mark
LINE = re.compile(r"^([a-z_0-9]+)(?:\{(.*)\})? ([^ ]+)$")


class Page:
    """A page of metrics: the kind of each family and the value of each series."""

    def __init__(self, text):
        self.kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
        self.series = {}
        for line in text.splitlines():
            if found := LINE.match(line):
                labels = frozenset(re.findall(r'([a-z_]+)="([^"]*)"', found[2] or ""))
                self.series[found[1], labels] = float(found[3])

    def gauges(self):
        return {key: value for key, value in self.series.items() if self.kinds.get(key[0]) == "gauge"}

    def total(self, name, **labels):
        wanted = set(labels.items())
        return sum(value for (family, its), value in self.series.items() if family == name and wanted <= its)

    def requests(self):
        """How many requests ended with which class of status and which reason."""
        found = collections.Counter()
        for (family, labels), value in self.series.items():
            if family == "attache_requests_total" and value:
                labels = dict(labels)
                found[labels["code"], labels["reason"]] += int(value)
        return found


class Attache:
    def __init__(
        self, binary, *, app, timeout="3s", silence="1s", connect="300ms", header="2s", access_log="off", limits=(), stdout=None
    ):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos-"))
        self.binary, self.limits, self.stdout, self.process = binary, limits, stdout, None
        self.app, self.access_log = app, access_log
        self.times = {"silence": silence, "connect": connect, "header": header}
        self.config = self.folder / "attache.yaml"
        self.log = self.folder / "log"
        self.write(timeout)

    def write(self, timeout):
        names = {"METRICS": METRICS, "WEB": WEB, "ECHO": ECHO, "PROXY": PROXY, "DNS": DNS, "MAX_REQUESTS": MAX_REQUESTS}
        app = ", ".join(f'"http://{host}:8080"' for host in self.app)
        text = CONFIG.format(app=app, timeout=timeout, access_log=self.access_log, **self.times, **names)
        beside = self.config.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.config)

    async def start(self):
        def limit():
            for what, value in self.limits:
                resource.setrlimit(what, (value, value))

        with open(self.log, "wb") as log:
            out = self.stdout if self.stdout is not None else log
            self.process = await asyncio.create_subprocess_exec(
                self.binary, "run", "-c", str(self.config), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=log,
                preexec_fn=limit,
            )
        for _ in range(200):
            if self.process.returncode is not None:
                break
            try:
                return await self.page()
            except OSError:
                await asyncio.sleep(0.05)
        raise RuntimeError(f"attache does not start:\n{self.log.read_text()}")

    async def page(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", METRICS)
        try:
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(-1), 10)
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            body = unchunked(body)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise OSError(f"/metrics: {head[:40]}")
        return Page(body.decode())

    def memory(self):
        """The proportional set size, in KiB."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def errors(self):
        """Lines of the log at the level ERROR."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if re.search(r"\bERROR\b", line)]

    def signal(self, what):
        os.kill(self.process.pid, what)

    async def end(self):
        """SIGTERM; returns the exit code, or None where it had to be killed."""
        if self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), 15)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
            return None


def unchunked(body):
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        size = int(size, 16)
        whole, body = whole + body[:size], body[size + 2:]
        if not size:
            break
    return whole
