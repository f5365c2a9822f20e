"""Free ports, for scripts beside this one and for those that add its folder to their path."""

import itertools
import os
import socket

# Below those that the kernel gives to clients (`net.ipv4.ip_local_port_range`): what it gives away for port 0 may be a client's a
# moment later. Processes that run side by side begin at different places.
PORTS = range(20_000, 32_000)
NEXT = itertools.count(os.getpid() * 97)


def free_port():
    """A port on which nothing listened a moment ago, by TCP or UDP, and that this process gives nobody else."""
    for _ in PORTS:
        port = PORTS[next(NEXT) % len(PORTS)]
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")
