"""A user, network and mount namespace of the harness's own, and the packet filter in it."""

import contextlib
import os
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
    """Rules of nftables, as long as the block lasts."""
    nft("".join(f"add rule inet chaos in {rule}\n" for rule in rules))
    try:
        yield
    finally:
        nft("flush chain inet chaos in\n")


def both_ways(address, action):
    """The packets to an endpoint and those from it."""
    return [f"ip daddr {address} {action}", f"ip saddr {address} {action}"]


def small_disk(folder, size):
    """Lasts as long as the namespace."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
