"""attache is upgraded in a running pod, under load: upgrade_in_pod.py ATTACHE [SECONDS]. Prints one JSON object.

Two root filesystems stand for two images, one folder for the emptyDir that both have mounted. The first runs attache as process 1 of a process
namespace; from the second, which sees its processes (an ephemeral container with a target), `attache upgrade` is run four times:

  1  a program that ends at once takes over nothing: the old one serves on
  2  a newer attache takes over, under load
  3  another one takes over from that, whose parent isn't process 1's own program any more
  4  SIGTERM to process 1 ends the one that serves, and the container with it

Load all the while: HTTP/1.1 calls, WebSockets that echo, and gRPC streams. Each counts what failed. It needs a network namespace of its own.
"""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from concurrent import futures

import grpc

PORT, HTTP, GRPC, METRICS = 15001, 18080, 18081, 15090
count = {"requests": 0, "failed": 0, "websockets": 0, "websocket_messages": 0, "websockets_failed": 0, "grpc_streams": 0, "grpc_messages": 0, "grpc_failed": 0, "why": []}


async def upstream(reader, writer):
    """200 and two bytes, or after an upgrade an echo."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"pgrade: websocket" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
                while data := await reader.read(1024):
                    writer.write(data)
                    await writer.drain()
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def calls(stop):
    connection = None
    while not stop.is_set():
        count["requests"] += 1
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", PORT)
            reader, writer = connection
            writer.write(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head[:200]
            await reader.readexactly(2)
            if b"connection: close" in head:
                writer.close()
                connection = None
        except (OSError, AssertionError, asyncio.IncompleteReadError) as error:
            count["failed"] += 1
            count["why"].append(f"call: {error!r}"[:200])
            connection = None
    if connection:
        connection[1].close()


async def websocket(stop, lasts):
    """One after the other; each lives for `lasts` seconds and must echo to its end."""
    while not stop.is_set():
        count["websockets"] += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write(
                b"GET /ws HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 101 " in head, head[:200]
            end = time.monotonic() + lasts
            while time.monotonic() < end:
                writer.write(b"ping")
                assert await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"
                count["websocket_messages"] += 1
                await asyncio.sleep(0.02)
            writer.close()
        except (OSError, AssertionError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            count["websockets_failed"] += 1
            count["why"].append(f"websocket: {error!r}"[:200])


async def grpc_stream(stop, lasts):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{PORT}", options=[("grpc.default_authority", "grpc"), ("grpc.use_local_subchannel_pool", 1)]) as channel:
        while not stop.is_set():
            count["grpc_streams"] += 1
            end = time.monotonic() + lasts

            async def questions():
                while time.monotonic() < end:
                    yield b"a"
                    await asyncio.sleep(0.02)

            try:
                async for _ in channel.stream_stream("/test.Echo/Both")(questions()):
                    count["grpc_messages"] += 1
            except grpc.RpcError as error:
                count["grpc_failed"] += 1
                count["why"].append(f"grpc: {error.code()} {error.details()}"[:200])


def root(folder, attache, upgrade):
    """A root filesystem with this program in it; the rest of the machine's libraries, read-only in the image of a pod, are bound into it."""
    for name in ("usr", "lib", "lib64", "etc", "proc", "dev", "upgrade", "config"):
        (folder / name).mkdir(parents=True)
    for name in ("usr", "lib", "lib64", "etc", "dev"):
        if pathlib.Path("/", name).exists():
            subprocess.run(["mount", "--rbind", f"/{name}", folder / name], check=True)
    subprocess.run(["mount", "--bind", upgrade, folder / "upgrade"], check=True)
    (folder / "attache").touch()
    subprocess.run(["mount", "--bind", attache, folder / "attache"], check=True)


async def main(attache, seconds):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    base = pathlib.Path(tempfile.mkdtemp(prefix="attache-upgrade-"))
    # It goes with this process' mounts: nothing is left to be removed, and nothing below the binds can be.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", base], check=True)
    upgrade = base / "upgrade"
    upgrade.mkdir()
    old, new = base / "old", base / "new"
    root(old, attache, upgrade)
    root(new, attache, upgrade)
    (old / "config" / "attache.yaml").write_text(
        f"workers: 2\nadmin: off\nmetrics: '127.0.0.1:{METRICS}'\n"
        f"listeners: {{ out: {{ bind: '127.0.0.1:{PORT}', routes: [{{ match: {{ host: grpc }}, to: grpc }}], to: web }} }}\n"
        f"upstreams: {{ web: 'http://127.0.0.1:{HTTP}', grpc: 'h2c://127.0.0.1:{GRPC}' }}\n"
    )
    server = await asyncio.start_server(upstream, "127.0.0.1", HTTP)
    answers = grpc.server(futures.ThreadPoolExecutor(16))
    both = grpc.stream_stream_rpc_method_handler(lambda requests, _: (request.upper() for request in requests))
    answers.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Both": both}),))
    answers.add_insecure_port(f"127.0.0.1:{GRPC}")
    answers.start()

    log = open(base / "log", "w+")
    run = f"mount -t proc proc {old}/proc && exec chroot {old} /attache run -c /config/attache.yaml --upgrade-dir /upgrade"
    parent = subprocess.Popen(["unshare", "--pid", "--fork", "--mount", "sh", "-c", run], stdout=log, stderr=log)
    for _ in range(200):
        if (upgrade / "active").exists():
            break
        await asyncio.sleep(0.05)
    first = int(subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=True).stdout)

    async def upgraded():
        """`attache upgrade` in the second container: its status and what it said."""
        run = f"mount -t proc proc {new}/proc && exec chroot {new} /attache upgrade"
        enter = ["nsenter", "--target", str(first), "--pid", "unshare", "--mount", "sh", "-c", run]
        done = await asyncio.create_subprocess_exec(*enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = await done.communicate()
        return {"status": done.returncode, "said": said.decode().strip().splitlines()}

    def active():
        return (upgrade / "active").read_text().split()[0]

    stop = asyncio.Event()
    clients = [asyncio.create_task(calls(stop)) for _ in range(8)]
    clients += [asyncio.create_task(websocket(stop, 3)) for _ in range(4)]
    clients += [asyncio.create_task(grpc_stream(stop, 3)) for _ in range(4)]
    await asyncio.sleep(seconds / 4)
    steps = {}
    # It ends before it serves: here for its config, as it would for a missing library or a defect.
    (old / "config" / "right.yaml").write_text((old / "config" / "attache.yaml").read_text())
    (old / "config" / "attache.yaml").write_text("listeners: nonsense\n")
    steps["can't serve"] = await upgraded()
    steps["can't serve"]["active"] = active()
    (old / "config" / "attache.yaml").write_text((old / "config" / "right.yaml").read_text())
    await asyncio.sleep(seconds / 4)
    for name in ("first", "second"):
        steps[name] = await upgraded()
        await asyncio.sleep(seconds / 4)
        steps[name]["active"] = active()
    memory = [line for line in pathlib.Path(f"/proc/{first}/status").read_text().splitlines() if line.startswith("VmRSS")]
    stop.set()
    await asyncio.gather(*clients)
    os.kill(first, signal.SIGTERM)
    try:
        ended = parent.wait(60)
    except subprocess.TimeoutExpired:
        ended = "still there after 60 s"
        parent.kill()
    log.seek(0)
    lines = [line.strip() for line in log if " WARN " in line or " ERROR " in line or "taken over" in line]
    server.close()
    print(json.dumps({**count, "why": sorted(set(count["why"]))[:8], "steps": steps, "first_process": memory, "ended": ended, "log": lines[-12:]}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 12))
    os._exit(0)
