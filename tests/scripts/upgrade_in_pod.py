"""attache is upgraded in a running pod, under load: upgrade_in_pod.py OLD [--newer NEW] [--requests N] [--hang] [--crash]. Prints one
JSON object.

Two root filesystems stand for two images, and one folder stands for the emptyDir that both mount. The first runs OLD as process 1 of a process
namespace. The second sees the processes of the first, like an ephemeral container with a target. In the second the script runs
`attache upgrade`:

  can't serve  the new program ends at once: the old process continues to serve
  hangs        (with --hang) the new program never reports that it serves: it is killed after 60 s, and the old process continues to serve
  first        NEW takes over, under load
  second       OLD takes over from NEW, whose parent is no longer the first program of process 1
  end          SIGTERM to process 1 ends all processes, also those that still drain, and then the container; with --crash the script kills
               the process that serves, and the container ends at once, although other processes have not drained

During all steps there is load, until N requests were answered: wrk (HTTP/1.1), unary calls and streams of grpcio, WebSockets that echo, and
the kubelet's probe of the app. One WebSocket and one gRPC stream begin on the first attache and last until the last step: they live longer
than `shutdown.drain_timeout`. Each kind of load counts its failures. The script needs its own network and mount namespaces.
"""

import argparse
import asyncio
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent import futures

import grpc
import websockets

PORT, HTTP, WS, GRPC, METRICS, PROBES = 15001, 18080, 18082, 18081, 15090, 15020
names = ("requests", "failed", "websockets", "websocket_messages", "websockets_failed", "grpc_calls", "grpc_streams", "grpc_messages", "grpc_failed", "probes", "probes_failed")
count = {**dict.fromkeys(names, 0), "why": []}
NGINX = """daemon off; master_process off; pid {at}/pid; error_log stderr crit; events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }} }}
"""


def failed(what, error):
    count[what] += 1
    count["why"].append(f"{what}: {error}"[:200])


async def wrk(stop):
    """Rounds of five seconds."""
    while not stop.is_set():
        command = ["wrk", "-t", "1", "-c", "16", "-d", "5s", "--timeout", "10s", f"http://127.0.0.1:{PORT}/"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = (await process.communicate())[0].decode()
        count["requests"] += int(re.search(r"(\d+) requests in", text)[1])
        errors = re.findall(r"(connect|read|write|timeout|responses:) (\d+)", text)
        count["failed"] += sum(int(number) for _, number in errors)
        if any(int(number) for _, number in errors):
            count["why"].append(f"wrk: {errors}")


async def websocket(stop, lasts):
    """One after the other; each lives for `lasts` seconds and must echo to its end."""
    while not stop.is_set():
        count["websockets"] += 1
        end = time.monotonic() + lasts
        try:
            async with websockets.connect(f"ws://127.0.0.1:{PORT}/ws") as socket:
                while time.monotonic() < end and not stop.is_set():
                    await socket.send("ping")
                    assert await asyncio.wait_for(socket.recv(), 20) == "ping"
                    count["websocket_messages"] += 1
                    await asyncio.sleep(0.05)
        except (OSError, AssertionError, asyncio.TimeoutError, websockets.WebSocketException) as error:
            failed("websockets_failed", f"after {time.monotonic() - end + lasts:.1f} s: {error!r}")


def channel():
    options = [("grpc.default_authority", "grpc"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{PORT}", options=options)


async def grpc_streams(stop, lasts):
    async with channel() as at:
        while not stop.is_set():
            count["grpc_streams"] += 1
            end = time.monotonic() + lasts

            async def questions():
                while time.monotonic() < end and not stop.is_set():
                    yield b"a"
                    await asyncio.sleep(0.05)

            try:
                async for _ in at.stream_stream("/test.Echo/Both")(questions()):
                    count["grpc_messages"] += 1
            except grpc.RpcError as error:
                failed("grpc_failed", f"stream: {error.code()} {error.details()}")


async def grpc_calls(stop):
    async with channel() as at:
        while not stop.is_set():
            count["grpc_calls"] += 1
            try:
                assert await at.unary_unary("/test.Echo/One")(b"a", timeout=30) == b"A"
            except (grpc.RpcError, AssertionError) as error:
                failed("grpc_failed", f"call: {error!r}")


async def probes(stop):
    """Ten times as often as the kubelet would ask at most."""
    while not stop.is_set():
        count["probes"] += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", PROBES)
            writer.write(b"GET /app-probe/web/readiness HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 20)
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
            writer.close()
        except (OSError, AssertionError, asyncio.TimeoutError) as error:
            failed("probes_failed", repr(error))
        await asyncio.sleep(0.1)


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.WebSocketException:
        pass


def servers(base):
    nginx = base / "nginx"
    nginx.mkdir()
    (nginx / "nginx.conf").write_text(NGINX.format(at=nginx, port=HTTP))
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", nginx / "nginx.conf", "-p", nginx], stderr=subprocess.DEVNULL)
    answers = grpc.server(futures.ThreadPoolExecutor(16))
    handlers = {
        "Both": grpc.stream_stream_rpc_method_handler(lambda requests, _: (request.upper() for request in requests)),
        "One": grpc.unary_unary_rpc_method_handler(lambda request, _: request.upper()),
    }
    answers.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    answers.add_insecure_port(f"127.0.0.1:{GRPC}")
    answers.start()
    return process, answers


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


async def main(options):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    base = pathlib.Path(tempfile.mkdtemp(prefix="attache-upgrade-"))
    # It goes with this process' mounts: nothing is left to be removed, and nothing below the binds can be.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", base], check=True)
    upgrade = base / "upgrade"
    upgrade.mkdir()
    images = {"old": base / "old", "new": base / "new"}
    root(images["old"], options.old, upgrade)
    root(images["new"], options.newer or options.old, upgrade)
    config = images["old"] / "config" / "attache.yaml"
    right = (
        f"workers: 2\nadmin: off\nmetrics: '127.0.0.1:{METRICS}'\nlisteners:\n  out:\n    bind: '127.0.0.1:{PORT}'\n"
        f"    routes: [{{ match: {{ host: grpc }}, to: grpc }}, {{ match: {{ path: /ws }}, to: ws }}]\n    to: web\n"
        f"upstreams: {{ web: 'http://127.0.0.1:{HTTP}', ws: 'http://127.0.0.1:{WS}', grpc: 'h2c://127.0.0.1:{GRPC}' }}\n"
    )
    config.write_text(right)
    nginx, answers = servers(base)
    sockets = await websockets.serve(echo, "127.0.0.1", WS)

    log = open(base / "log", "w+")
    probe = {"/app-probe/web/readiness": {"httpGet": {"path": "/", "port": HTTP}, "timeoutSeconds": 10}}
    environment = {**os.environ, "POD_IP": "127.0.0.1", "ATTACHE_APP_PROBES": json.dumps({"port": PROBES, "probes": probe})}
    run = f"mount -t proc proc {images['old']}/proc && exec chroot {images['old']} /attache run -c /config/attache.yaml --upgrade-dir /upgrade"
    parent = subprocess.Popen(["unshare", "--pid", "--fork", "--mount", "sh", "-c", run], stdout=log, stderr=log, env=environment)
    for _ in range(600):
        if (upgrade / "active").exists():
            break
        await asyncio.sleep(0.05)
    first = int(subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=True).stdout)

    async def upgraded(image):
        """`attache upgrade` in a second container of this image: its status and what it said."""
        run = f"mount -t proc proc {images[image]}/proc && exec chroot {images[image]} /attache upgrade"
        enter = ["nsenter", "--target", str(first), "--pid", "unshare", "--mount", "sh", "-c", run]
        begun = time.monotonic()
        done = await asyncio.create_subprocess_exec(*enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = (await done.communicate())[0].decode().strip().splitlines()
        active = (upgrade / "active").read_text().split()[0]
        return {"status": done.returncode, "seconds": round(time.monotonic() - begun, 1), "said": said, "active": active}

    def newer():
        """The container's processes that run a program of the folder, by their numbers outside of it; the newest is the last."""
        own, found = os.readlink(f"/proc/{first}/ns/pid"), []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns" / "pid") == own and (folder / "cmdline").read_bytes().startswith(b"/upgrade/attache\0"):
                    found.append(int(folder.name))
            except OSError:
                pass
        return sorted(found)

    async def stopped():
        """Stops the process of a new program before it can say anything."""
        while not newer():
            await asyncio.sleep(0.001)
        os.kill(newer()[-1], signal.SIGSTOP)

    async def answered(part):
        while count["requests"] < options.requests * part:
            await asyncio.sleep(0.2)

    begun = time.monotonic()
    stop, never = asyncio.Event(), float("inf")
    load = [wrk(stop), grpc_calls(stop), probes(stop), websocket(stop, never), grpc_streams(stop, never)]
    load += [websocket(stop, 3) for _ in range(4)] + [grpc_streams(stop, 3) for _ in range(4)]
    clients = [asyncio.create_task(one) for one in load]
    await asyncio.sleep(2)
    steps = {}
    # It ends before it serves: here for its config, as it would for a missing library or a defect.
    config.write_text("listeners: nonsense\n")
    steps["can't serve"] = await upgraded("new")
    config.write_text(right)
    if options.hang:
        stopping = asyncio.create_task(stopped())
        steps["hangs"] = await upgraded("new")
        stopping.cancel()
    await answered(1 / 3)
    steps["first"] = await upgraded("new")
    await answered(2 / 3)
    steps["second"] = await upgraded("old")
    await answered(1)
    lines = pathlib.Path(f"/proc/{first}/status").read_text().splitlines()
    memory = [" ".join(line.split()) for line in lines if line.startswith("VmRSS")]
    served = len((upgrade / "active").read_text().splitlines())
    seconds = round(time.monotonic() - begun)
    if options.crash:
        os.kill(newer()[-1], signal.SIGKILL)
    else:
        stop.set()
        await asyncio.gather(*clients)
        os.kill(first, signal.SIGTERM)
    begun = time.monotonic()
    try:
        ended = await asyncio.to_thread(parent.wait, 60)
    except subprocess.TimeoutExpired:
        ended = "still there after 60 s"
        parent.kill()
    ended = {"code": ended, "seconds": round(time.monotonic() - begun, 1)}
    stop.set()
    log.seek(0)
    lines = [line.strip() for line in log if " WARN " in line or " ERROR " in line or "taken over" in line]
    sockets.close()
    nginx.terminate()
    about = {"seconds": seconds, "first_process": memory, "processes_before_the_end": served, "ended": ended, "log": lines[-12:]}
    print(json.dumps({**count, "why": sorted(set(count["why"]))[:8], "steps": steps, **about}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("old")
    parser.add_argument("--newer", help="the second image's program; the same without it")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--crash", action="store_true")
    asyncio.run(main(parser.parse_args()))
    sys.stdout.flush()
    os._exit(0)
