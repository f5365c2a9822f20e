"""The results as a table and as a plot."""
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import statistics
import subprocess

OURS = "attache"
COLOURS = {"attache": "#0f766e", "HAProxy": "#64748b", "nginx": "#94a3b8", "Envoy": "#b45309"}


@dataclasses.dataclass
class Line:
    """The medians of a row by proxy: CPU microseconds per unit, units per second, latencies in ms."""
    title: str
    unit: str
    cost: dict
    spread: dict
    rate: dict
    latency: dict
    direct: tuple

    @classmethod
    def of(cls, row, lanes, without):
        median = statistics.median

        def latencies(results):
            of = lambda key: [getattr(result, key) for result in results if getattr(result, key) is not None]
            return tuple(median(of(key)) if of(key) else None for key in ("p50", "p99", "p999"))
        return cls(
            row.title, row.unit,
            {name: median(lane.cost) for name, lane in lanes.items()},
            {name: (min(lane.cost), max(lane.cost)) for name, lane in lanes.items()},
            {name: median(lane.rate) for name, lane in lanes.items()},
            {name: latencies(lane.results) for name, lane in lanes.items()},
            latencies(without),
        )

    def ratio(self, other):
        return self.cost[OURS] / self.cost[other] if other in self.cost else None

    def text(self):
        return f"{self.title}: " + ", ".join(f"{name} {cost:.1f}" for name, cost in self.cost.items()) + f" µs/{self.unit}"


def number(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}, Linux {platform.release()}"


def versions(options, names):
    asked = {"attache": [options.attache, "--version"], "HAProxy": ["haproxy", "-v"], "nginx": ["nginx", "-v"],
             "Envoy": [options.envoy, "--version"]}
    found = []
    for name in names:
        out = subprocess.run(asked[name], capture_output=True, text=True)
        version = re.search(r"\d+\.\d+(\.\d+)?", out.stdout + out.stderr)
        found.append(f"{name} {version.group(0) if version else '?'}")
    return ", ".join(found)


def page(lines, memory, held, options, names):
    peers = [name for name in names if name != OURS]
    out = [f"{datetime.date.today()}, {machine()}.", f"{versions(options, names)}.",
           f"{options.rounds} rounds of {options.seconds:g} s, interleaved; medians.", "",
           "CPU time of the proxy for each unit of work, in µs:", "",
           "| row | unit | " + " | ".join(names) + " | " + " | ".join(f"attache / {peer}" for peer in peers) + " |",
           "| --- " * (2 + len(names) + len(peers)) + "|"]
    for line in lines:
        costs = [number(line.cost.get(name)) for name in names]
        ratios = [number(line.ratio(peer), 2) for peer in peers]
        out.append(f"| {line.title} | {line.unit} | " + " | ".join(costs + ratios) + " |")
    out += ["", "Work done a second (both cores shared by proxy, upstream and load: a bound of the machine, not of the proxy):", "",
            "| row | " + " | ".join(names) + " |", "| --- " * (1 + len(names)) + "|"]
    out += [f"| {line.title} | " + " | ".join(number(line.rate.get(name), 0) for name in names) + " |" for line in lines]
    timed = [line for line in lines if any(p50 is not None for p50, _, _ in line.latency.values())]
    if timed:
        out += ["", "Latency in ms, p50 / p99 / p99.9:", "", "| row | " + " | ".join(names) + " | direct |", "| --- " * (2 + len(names)) + "|"]
        shown = lambda times: " / ".join(number(time, 2) for time in times) if times and times[0] is not None else "-"
        out += [f"| {line.title} | " + " | ".join(shown(line.latency.get(name)) for name in names) + f" | {shown(line.direct)} |"
                for line in timed]
    if memory:
        out += ["", f"Memory, and the start (until the port answers):", "",
                f"| proxy | idle, MiB | for each of {held:,} idle connections, anonymous, KiB | start, ms |", "| --- | --- | --- | --- |"]
        out += [f"| {name} | {empty / 1024:.1f} | {each:.2f} | {ready:.0f} |" for name, (empty, each, ready) in memory.items()]
    return "\n".join(out) + "\n"


def plot(lines):
    """The CPU cost as bars; each row is scaled to its most expensive proxy. Readable on light and dark pages."""
    bar, gap, left, wide = 12, 26, 300, 420
    names = sorted({name for line in lines for name in line.cost}, key=list(COLOURS).index)
    height = 40 + sum(len(line.cost) * bar + gap for line in lines)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 90} {height}" font-family="system-ui, sans-serif" font-size="11">',
           "<title>CPU time for each unit of work, by proxy</title>",
           "<style>text{fill:#334155}@media(prefers-color-scheme:dark){text{fill:#cbd5e1}}</style>"]
    for index, name in enumerate(names):
        out.append(f'<rect x="{left + index * 90}" y="8" width="10" height="10" fill="{COLOURS[name]}"/>'
                   f'<text x="{left + index * 90 + 15}" y="17">{name}</text>')
    y = 36
    for line in lines:
        most = max(line.cost.values())
        out.append(f'<text x="{left - 10}" y="{y + len(line.cost) * bar / 2 + 4}" text-anchor="end">{line.title}</text>')
        for name in names:
            if name in line.cost:
                width = wide * line.cost[name] / most
                out.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{bar - 2}" fill="{COLOURS[name]}"/>'
                           f'<text x="{left + width + 5:.1f}" y="{y + bar - 3}">{line.cost[name]:.1f} µs</text>')
                y += bar
        y += gap
    return "\n".join(out) + "\n</svg>\n"
