"""A user, network and mount namespace of the harness's own, and the packet filter in it."""

import contextlib
import os
import re
import subprocess
import sys

MARK = "ATTACHE_CHAOS_ALONE"
CHAINS = "table inet chaos {\n chain in {\n type filter hook input priority 0\n }\n}\n"


def run(arguments):
    """Starts this program in namespaces of its own, where it is root, owns the loopback interface and may mount; returns its exit code."""
    command = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, sys.argv[0], *arguments]
    return subprocess.run(command, env={**os.environ, MARK: "1"}).returncode


def is_alone():
    return os.environ.get(MARK) == "1"


def prepare():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    nft(CHAINS)


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@contextlib.contextmanager
def packets(*rules):
    """Rules of nftables that drop packets, as long as the block lasts. Each case sees that some were dropped."""
    nft("".join(f"add rule inet chaos in {rule} counter drop\n" for rule in rules))
    try:
        yield
        listed = subprocess.run(["nft", "list", "chain", "inet", "chaos", "in"], capture_output=True, text=True, check=True)
        if not any(int(count) for count in re.findall(r"counter packets (\d+)", listed.stdout)):
            raise RuntimeError("no packet was dropped: the fault was not there")
    finally:
        nft("flush chain inet chaos in\n")


def both_ways(address, which=""):
    """The packets to an endpoint and those from it."""
    return [f"ip daddr {address} {which}", f"ip saddr {address} {which}"]


def small_disk(folder, size):
    """Lasts as long as the namespace."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
