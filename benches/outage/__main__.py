#!/usr/bin/env python3
"""Shows what a caller sees while endpoints are dead or restarted, compared with nginx, HAProxy and Envoy.

    python3 benches/outage dead [PROXY …]       n of 10 endpoints dead, by kind, protocol and method
    python3 benches/outage restart [PROXY …]    10 endpoints restarted in place, one after the other, under load
    python3 benches/outage rolling [PROXY …]    10 pods replaced by ten others, one after the other, with DNS behind by LAG seconds (5)

ATTACHE and ENVOY name the binaries. KINDS (`refused,black-holed,TLS-broken`), WAYS (`drain,close,kill,moved,moved-mTLS`) and PROTOCOLS (`http1 GET,opaque`) select some of each. TRACE is a folder
for the logs. It needs Linux, root (it makes a network namespace of its own) and Python's h2, and the other proxies if they are named.
"""
import asyncio, os, sys

if os.environ.get("OUTAGE_INSIDE") != "1":
    os.environ["OUTAGE_INSIDE"] = "1"
    inside = 'ip link set lo up; exec "$@"'
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", inside, "x", sys.executable] + sys.argv)

import time

from callers import PROTOCOLS, Caller, tally
from dns import Zone
from pods import HOSTS, Pod, black_hole, certificates, tls
from proxies import DNS, can, connection_failures, present, start, stop, until_listening

CALLERS, CALLS = 8, 25


def some(variable, every):
    return os.environ[variable].split(",") if variable in os.environ else every


def header(*columns):
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)


def is_stream(protocol):
    return protocol in ("grpc stream", "websocket")


async def dead_row(proxy, protocol, kind, count):
    """Failed calls, the longest one, and connections that failed."""
    secure, echo = kind == "TLS-broken", protocol in ("opaque", "connect")
    pods = [await Pod(host, echo, tls("good") if secure else None).start() for host in HOSTS[count:]]
    held = []
    for host in HOSTS[:count]:
        if kind == "black-holed":
            held += black_hole(host)
        elif secure:
            pods.append(await Pod(host, echo, tls("bad")).start())
    process, slowest = start(proxy, protocol, secure), [0.0]

    async def caller():
        one, results = Caller(protocol), []
        for _ in range(CALLS):
            begun = time.monotonic()
            results.append(await one.call())
            slowest[0] = max(slowest[0], time.monotonic() - begun)
            await asyncio.sleep(.01)
        return results
    results = "did not start"
    if await until_listening(process):
        results = tally(sum(await asyncio.gather(*[caller() for _ in range(CALLERS)]), []))
    failures = connection_failures() if proxy == "attache" else ""
    stop(proxy, process)
    for pod in pods:
        pod.end(reset=True)
    for one in held:
        one.close()
    await asyncio.sleep(.05)
    return results, f"{slowest[0] * 1000:.0f} ms", failures


async def dead(proxies):
    header("dead", "kind", "protocol", *[f"{proxy}: failed calls" for proxy in proxies], "longest call (attache)", "connections that failed (attache)")
    for kind in some("KINDS", ["refused", "black-holed", "TLS-broken"]):
        for protocol in some("PROTOCOLS", [protocol for protocol in PROTOCOLS if not is_stream(protocol)]):
            for count in (1, 5, 9):
                row, longest, failures = [], "", ""
                for proxy in proxies:
                    if not can(proxy, protocol, kind == "TLS-broken"):
                        row.append("-")
                        continue
                    results, took, failed = await dead_row(proxy, protocol, kind, count)
                    row.append(results)
                    if proxy == "attache":
                        longest, failures = took, failed
                print(f"| {count} of 10 | {kind} | {protocol} | " + " | ".join(row) + f" | {longest} | {failures} |", flush=True)


async def under_load(proxy, protocol, secure, named, work):
    """The counts of 20 callers, each with 15 calls a second, while `work` runs."""
    process, over = start(proxy, protocol, secure, named), asyncio.Event()
    if not await until_listening(process):
        return "did not start"
    await asyncio.sleep(1 if named else 0)

    async def caller():
        one, results = Caller(protocol), []
        while not over.is_set():
            results.append(await one.call())
            await asyncio.sleep(1 / 15)
        return results
    callers = [asyncio.ensure_future(caller()) for _ in range(20)]
    await work()
    await asyncio.sleep(.5)
    over.set()
    results = tally(sum(await asyncio.gather(*callers), []))
    stop(proxy, process)
    return results


async def end(pod, way, protocol):
    """Ends a pod in this way."""
    if way == "drain":
        pod.drain()
        await asyncio.sleep(.3)
        # It waits for streams and WebSockets, as a pod does within its grace period.
        for _ in range(100 if is_stream(protocol) else 0):
            if not pod.open:
                break
            await asyncio.sleep(.1)
    pod.end(reset=way != "drain" and way != "close")


async def restart(proxies):
    header("way", "protocol", *[f"{proxy}: failed calls" for proxy in proxies])
    for way in some("WAYS", ["drain", "close", "kill"]):
        for protocol in some("PROTOCOLS", [protocol for protocol in PROTOCOLS if protocol not in ("connect", "http2 GET")]):
            row = []
            for proxy in proxies:
                if not can(proxy, protocol):
                    row.append("-")
                    continue
                pods = {host: await Pod(host, protocol == "opaque").start() for host in HOSTS}

                async def work():
                    for host in HOSTS:
                        await asyncio.sleep(.4)
                        await end(pods[host], way, protocol)
                        # The address does not answer until the pod is back, and DNS names it all the time.
                        await asyncio.sleep(.4)
                        pods[host] = await Pod(host, protocol == "opaque").start()
                row.append(await under_load(proxy, protocol, False, False, work))
                for pod in pods.values():
                    pod.end(reset=True)
                await asyncio.sleep(.1)
            print(f"| {way} | {protocol} | " + " | ".join(row) + " |", flush=True)


async def rolling(proxies):
    lag = float(os.environ.get("LAG", "5"))
    # Fewer than half of the addresses in DNS belong to pods that have ended.
    pause = max(1.4, lag / 5)
    header("way", "protocol", *[f"{proxy}: failed calls" for proxy in proxies])
    for way in some("WAYS", ["drain", "close", "kill", "moved", "moved-mTLS"]):
        protocols = [protocol for protocol in PROTOCOLS if protocol not in ("connect", "http2 GET")]
        if way.startswith("moved"):
            protocols = ["http1 GET", "http1 POST", "grpc POST"]
        for protocol in some("PROTOCOLS", protocols):
            row = []
            for proxy in proxies:
                secure = way == "moved-mTLS"
                if not can(proxy, protocol, secure, True):
                    row.append("-")
                    continue
                echo, trust = protocol == "opaque", tls("good", True) if secure else None
                pods, zone = [await Pod(host, echo, trust).start() for host in HOSTS], await Zone(HOSTS).serve(DNS)

                async def work():
                    for number, old in enumerate(list(pods), 1):
                        begun = time.monotonic()
                        new = f"127.0.2.{number}"
                        pods.append(await Pod(new, echo, trust).start())
                        zone.later(lag, old.host, new)
                        await end(old, way, protocol)
                        if way.startswith("moved"):
                            other = tls("other", True) if secure else None
                            pods.append(await Pod(old.host, echo, other, other=True).start())
                        await asyncio.sleep(max(0, begun + pause - time.monotonic()))
                    await asyncio.sleep(lag + 1)
                row.append(await under_load(proxy, protocol, secure, True, work))
                zone.close()
                for pod in pods:
                    pod.end(reset=True)
                await asyncio.sleep(.1)
            print(f"| {way} | {protocol} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    certificates()
    asyncio.run({"dead": dead, "restart": restart, "rolling": rolling}[sys.argv[1]](sys.argv[2:] or present()))
