#!/usr/bin/env python3
"""attache, Envoy, HAProxy and nginx with the same jobs, side by side in one run.

    cargo xtask compare [--quick] [--rows REGEX] [--rounds N] [--seconds S] [--out FOLDER]

Each proxy has one worker; there is one upstream and one load tool at a time. The proxies run on one core, load and upstream on another.
The rounds are interleaved. CPU time is that of all threads of the proxy, from /proc (schedstat): wall time is misleading on shared
machines, and the ratio of CPU times within one run is not.
"""
import argparse
import dataclasses
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import namespaces
import report
import rows
import upstreams
from processes import PROXY_CORE, Process, require_free
from proxies import Attache, Envoy, HAProxy, Job, Nginx

FIRST_PORT = 18300
#: The difference between the ports of the two proxies of a pair.
FAR = 300


class Lane:
    """One proxy in one row."""

    def __init__(self, processes, port):
        self.processes, self.port = processes, port
        self.cost, self.rate, self.results = [], [], []

    def cpu_ns(self):
        return sum(process.cpu_ns() for process in self.processes)

    def round(self, row, seconds, tools):
        before, began = self.cpu_ns(), time.monotonic()
        result = row.load(self.port, seconds, tools)
        took, spent = time.monotonic() - began, self.cpu_ns() - before
        self.cost.append(spent / result.done / 1000)
        self.rate.append(result.done / took)
        self.results.append(result)


def start(folder, proxy, job, port, pki, inside=None):
    command, files = proxy.command(job, port, pki)
    # If there are several workers, the kernel chooses their cores, which they share with the load.
    core = PROXY_CORE if job.workers == 1 else None
    if inside:
        process = Process(folder, f"{proxy.name}-{port}", inside.run(command), files, core, namespaces.PROXY_GROUP)
        time.sleep(2)
        process.check()
    else:
        require_free(port)
        process = Process(folder, f"{proxy.name}-{port}", command, files, core)
        process.wait_for(port)
    return process


def measure(row, proxies, folder, pki, tools, options, port):
    lanes = {}
    try:
        for offset, proxy in enumerate(proxies):
            here, job, inside = port + offset, row.job, None
            if proxy.command(job, here, pki) is None:
                continue
            lane = lanes[proxy.name] = Lane([], here)
            if job.transparent:
                inside = tools["namespaces"][here] = namespaces.Namespace(offset)
                inside.redirect(options.attache)
            if job.pair:
                # The other proxy of the pair: it accepts the call and passes it on to the server.
                far = here + FAR
                lane.processes.append(start(folder, proxy, Job("https", "http", client_certificate=True), far, pki))
                job = dataclasses.replace(job, to=far)
            lane.processes.append(start(folder, proxy, job, here, pki, inside))
        for lane in lanes.values():
            row.load(lane.port, 1, tools)
        direct = rows.direct(row)
        without = []
        for _ in range(options.rounds):
            for lane in lanes.values():
                lane.round(row, options.seconds, tools)
            if direct:
                without.append(row.load(direct, options.seconds, tools))
        return lanes, without
    finally:
        for lane in lanes.values():
            for process in lane.processes:
                process.stop()
        while tools["namespaces"]:
            tools["namespaces"].popitem()[1].close()


def idle(proxies, folder, pki, tools, port, connections):
    """Memory after the start, the memory that each idle connection adds, and the time from the start to the first response, in ms."""
    found = {}
    for offset, proxy in enumerate(proxies):
        began = time.monotonic()
        process = start(folder, proxy, Job("http", "http"), port + offset, pki)
        ready = (time.monotonic() - began) * 1000
        # Memory that only the start needed is released after a second.
        time.sleep(3)
        resident, empty = process.memory_kib("VmRSS"), process.memory_kib("RssAnon")
        holder = subprocess.Popen([tools["load"], "idle", f"127.0.0.1:{port + offset}", "--connections", str(connections), "--request"],
                                  stdout=subprocess.PIPE, text=True)
        said = holder.stdout.readline().strip()
        if said != "open":
            raise SystemExit(f"{proxy.name} does not hold {connections} connections: {said}")
        # Proxies that release memory do so after a while.
        time.sleep(5)
        # The number of resident pages of the program's file varies; a connection needs none of them.
        full = process.memory_kib("RssAnon")
        holder.kill()
        holder.wait()
        process.stop()
        found[proxy.name] = (resident, (full - empty) / connections, ready)
    return found


def raise_descriptors():
    """Raises the limit of file descriptors to what 10,000 connections need on both sides, or to the highest allowed value."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (60000, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return limit
        except (ValueError, OSError):
            continue
    return hard


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main rows, in about two minutes")
    parser.add_argument("--rows", default="", help="only rows whose title matches")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--connections", type=int, default=10000, help="idle connections for the memory row")
    parser.add_argument("--out", type=pathlib.Path, help="write results.md and results.svg there")
    parser.add_argument("--attache", required=True, help="the program that is measured")
    parser.add_argument("--load", required=True, help="the attache-load program")
    parser.add_argument("--train", action="store_true", help="only attache, each row once: the traffic for a profile")
    parser.add_argument("--envoy", help="the envoy program; without it Envoy is left out")
    options = parser.parse_args()
    # By default the signal ends this process at once, and leaves what it started behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for program in ("attache", "load", "envoy"):
        if getattr(options, program):
            setattr(options, program, os.path.abspath(getattr(options, program)))
    if options.train:
        options.rounds, options.seconds = 1, 2
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (1.5 if options.quick else 4)
    descriptors = raise_descriptors()

    proxies = [Attache(options.attache), HAProxy(descriptors // 2 - 500), Nginx()] + ([Envoy(options.envoy)] if options.envoy else [])
    if options.train:
        proxies = proxies[:1]
    missing = [program for program in ("wrk", "h2load", "haproxy", "nginx", "openssl") if not shutil.which(program)]
    if missing:
        raise SystemExit(f"not installed: {' '.join(missing)}")
    chosen = [row for row in rows.ROWS if (row.quick or not options.quick) and re.search(options.rows, row.title)]
    if not namespaces.possible():
        print("left out, as they need root: " + ", ".join(row.title for row in chosen if row.job.transparent))
        chosen = [row for row in chosen if not row.job.transparent]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # nginx reads files as another user.
        folder.chmod(0o755)
        (folder / "pki").mkdir()
        pki = upstreams.make_pki(folder / "pki")
        tools = {"load": options.load, "latency.lua": str(folder / "latency.lua"), "namespaces": {}}
        (folder / "latency.lua").write_text(rows.LATENCY_LUA)
        servers = upstreams.start(folder, pki, options.load, any(row.job.endpoints > 1 for row in chosen))
        try:
            lines, port = [], FIRST_PORT
            for row in chosen:
                lanes, without = measure(row, proxies, folder, pki, tools, options, port)
                port += len(proxies)
                if options.train:
                    print(f"carried: {row.title}", flush=True)
                    continue
                line = report.Line.of(row, lanes, without)
                print(line.text(), flush=True)
                lines.append(line)
            held = min(options.connections, 1000) if options.quick else options.connections
            memory = idle(proxies, folder, pki, tools, port, held) if re.search(options.rows, "memory idle") and not options.train else {}
        finally:
            for server in servers:
                server.stop()
    if options.train:
        return
    page = report.page(lines, memory, held, options, [proxy.name for proxy in proxies])
    print(page)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.md").write_text(page)
        (options.out / "results.svg").write_text(report.plot(lines))


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
