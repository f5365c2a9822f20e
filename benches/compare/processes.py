"""Processes that are measured: started on their core, asked for their CPU time and memory, ended by id."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

PROXY_CORE, LOAD_CORE = 0, 1


def on_core(core, group=None):
    """For `preexec_fn`: pins the process to the core, if it is named and exists, and sets this group."""
    def pin():
        if core is not None and core in os.sched_getaffinity(0):
            os.sched_setaffinity(0, {core})
        if group is not None:
            os.setgid(group)
    return pin


def require_free(*ports):
    """Checks that nothing listens there yet: otherwise a server that an interrupted run left behind would be measured instead of ours."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise SystemExit(f"something listens on 127.0.0.1:{port} already; `ss -ltnp 'sport = :{port}'` says what: end it first")


class Process:
    """A server in a folder of its own. `$HOME` in its files and command is that folder."""

    def __init__(self, folder, name, command, files=None, core=LOAD_CORE, group=None):
        self.name = name
        self.home = pathlib.Path(folder) / name
        self.home.mkdir()
        for file, text in (files or {}).items():
            (self.home / file).write_text(text.replace("$HOME", str(self.home)))
        self.log = open(self.home / "log", "wb")
        self.process = subprocess.Popen(
            [part.replace("$HOME", str(self.home)) for part in command],
            stdout=self.log, stderr=self.log, cwd=self.home, preexec_fn=on_core(core, group),
        )

    def pids(self):
        """Its own id and those of its children: nginx does its work in a child."""
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid] + [int(child) for child in children]

    def cpu_ns(self):
        """CPU time of all its threads, user and system, from the scheduler's own statistics."""
        total = 0
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory_kib(self, what):
        """The memory of all its processes: `VmRSS`, or `RssAnon`, the part without files (proc(5))."""
        total = 0
        for pid in self.pids():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            found = re.search(rf"{what}:\s+(\d+)", status)
            total += int(found.group(1)) if found else 0
        return total

    def check(self):
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended:\n{(self.home / 'log').read_text()[-2000:]}")

    def wait_for(self, port):
        for _ in range(5000):
            self.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.002)
        raise SystemExit(f"{self.name} does not listen on {port}:\n{(self.home / 'log').read_text()[-2000:]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
