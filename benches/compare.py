#!/usr/bin/env python3
"""CPU per request of attache, HAProxy and nginx as HTTP/1.1 reverse proxies, side by side in one run.

    cargo build --release && sudo apt-get install wrk haproxy nginx-light && benches/compare.py

One worker each, the same upstream (nginx, 1 KiB answers), the same load (wrk), rounds interleaved. CPU time is the proxy's own, of
all its threads, from /proc (schedstat): wall time lies on shared machines, the ratio of CPU times in one run does not.
"""
import argparse
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
UPSTREAM, ATTACHE, HAPROXY, NGINX = 18180, 18181, 18182, 18183


def wait_for(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def cpu_ns(process):
    """CPU time of a process' threads and of its children's."""
    total = 0
    pids = [process.pid]
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in pids + [int(child) for child in children]:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def rss_kib(process):
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    total = 0
    for pid in [process.pid] + children:
        found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        total += int(found.group(1)) if found else 0
    return total


def nginx_config(folder, body, workers=1):
    return f"""daemon off; worker_processes {workers}; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
{body} }}"""


def start(folder, name, text, command):
    home = pathlib.Path(folder) / name
    home.mkdir()
    config = home / "config"
    config.write_text(text.replace("$HOME", str(home)))
    return subprocess.Popen(
        [part.replace("$CONFIG", str(config)).replace("$HOME", str(home)) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def load(port, connections, seconds):
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"errors under load on {port}:\n{out}")
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    return requests, re.search(r"99%\s+(\S+)", out).group(1)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--binary", default=str(ROOT / "target/release/attache"))
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        upstream = start(
            folder, "upstream",
            nginx_config("$HOME", f"server {{ listen 127.0.0.1:{UPSTREAM}; return 200 '{'x' * 1024}'; }}"),
            ["nginx", "-c", "$CONFIG", "-p", "$HOME"],
        )
        proxies = {
            "attache": (ATTACHE, start(
                folder, "attache",
                f"workers: 1\nmetrics: off\nlisteners: {{ a: {{ bind: '127.0.0.1:{ATTACHE}' }} }}\n"
                f"upstreams: {{ a: 'http://127.0.0.1:{UPSTREAM}' }}\n",
                [options.binary, "run", "-c", "$CONFIG"],
            )),
            "HAProxy": (HAPROXY, start(
                folder, "haproxy",
                "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n timeout connect 1s\n timeout client 1m\n"
                f" timeout server 1m\n http-reuse always\nlisten a\n bind 127.0.0.1:{HAPROXY}\n server a 127.0.0.1:{UPSTREAM}\n",
                ["haproxy", "-db", "-f", "$CONFIG"],
            )),
            "nginx": (NGINX, start(
                folder, "nginx",
                nginx_config("$HOME", f"upstream u {{ server 127.0.0.1:{UPSTREAM}; keepalive 256; keepalive_requests 1000000000; }}\n"
                             f"server {{ listen 127.0.0.1:{NGINX}; location / {{ proxy_pass http://u; proxy_http_version 1.1; "
                             "proxy_set_header Connection ''; } }"),
                ["nginx", "-c", "$CONFIG", "-p", "$HOME"],
            )),
        }
        try:
            wait_for(UPSTREAM)
            for port, _ in proxies.values():
                wait_for(port)
            time.sleep(0.5)
            idle = {name: rss_kib(process) for name, (_, process) in proxies.items()}
            cost = {name: [] for name in proxies}
            tail = {name: "" for name in proxies}
            for port, _ in proxies.values():
                load(port, options.connections, 1)
            for _ in range(options.rounds):
                for name, (port, process) in proxies.items():
                    before = cpu_ns(process)
                    requests, tail[name] = load(port, options.connections, options.seconds)
                    cost[name].append((cpu_ns(process) - before) / requests / 1000)
            ours = statistics.median(cost["attache"])
            print(f"HTTP/1.1, {options.connections} connections, 1 KiB answers, {options.rounds} rounds of {options.seconds} s\n")
            print("| proxy | CPU per request, µs (median, min to max) | attache / it | p99 | memory idle |")
            print("| --- | --- | --- | --- | --- |")
            for name, values in cost.items():
                median = statistics.median(values)
                print(f"| {name} | {median:.1f} ({min(values):.1f} to {max(values):.1f}) | {ours / median:.2f} "
                      f"| {tail[name]} | {idle[name] / 1024:.1f} MiB |")
        finally:
            for process in [upstream] + [process for _, process in proxies.values()]:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
