"""A network namespace for each proxy of the transparent row: calls from inside it are redirected to the proxy there."""
import os
import subprocess

#: The group whose own connections are not redirected.
PROXY_GROUP = 1337
#: The port where proxies accept redirected connections, and the upstream's port.
REDIRECTED, UPSTREAM = 15001, 18187


class Namespace:
    """A namespace that a pair of virtual interfaces connects to the upstream's; `close` removes it."""

    def __init__(self, lane):
        self.name, self.link = f"attache-bench-{lane}", f"attache-b{lane}"
        self.upstream, self.inside = f"10.77.{lane}.1", f"10.77.{lane}.2"
        self.close()
        ip = lambda *words: subprocess.run(["ip", *words], check=True)
        ip("netns", "add", self.name)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("address", "add", f"{self.upstream}/24", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("-n", self.name, "address", "add", f"{self.inside}/24", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "link", "set", "lo", "up")

    def redirect(self, attache):
        subprocess.run(self.run([attache, "intercept", "--proxy-gid", str(PROXY_GROUP)]), check=True, capture_output=True)

    def run(self, command):
        return ["ip", "netns", "exec", self.name, *command]

    def close(self):
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True)
        subprocess.run(["ip", "link", "delete", self.link], capture_output=True)


def possible():
    return os.geteuid() == 0
