"""The start, reloads, hand-overs and the end, by the worst moments."""

import asyncio
import os
import pathlib
import signal
import socket
import time

from world import Attache, Server, answering, call, get, head, holds, promise, silent

SIMPLE = """
shutdown: { drain_timeout: 1s }
reload: { drain_timeout: 1s }
listeners:
  out: { bind: "127.0.0.1:$OUT", to: app }
upstreams:
  app: { address: "http://127.0.0.1:$APP", connect_timeout: 300ms }
"""
# A name whose look-up takes the whole time that a start, or a reload, has for it.
SLOW_NAME = """  slow: { address: "http://slow.test:80" }
dns: { servers: ["127.0.0.1:$DNS"], timeout: 10s }
"""


def deaf_dns():
    """A DNS server that never answers."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    return s


def processes(folder):
    """Those that run with a config of this folder."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


@promise
async def the_end_comes_in_its_time_whatever_still_runs(binary):
    """docs/running.md: what still runs is cut after `drain_timeout`, and the program ends at most 3.5 s later."""
    config = """
access_log: stdout
tracing: { otlp: "http://127.0.0.1:$DEAF", timeout: 30s }
shutdown: { drain_timeout: 1s }
listeners:
  in: { bind: "0.0.0.0:$IN", to: app }
  out: { bind: "127.0.0.1:$OUT", to: app }
  raw: { bind: "127.0.0.1:$RAW", protocol: tcp, to: raw }
upstreams:
  app: { address: "http://127.0.0.1:$APP" }
  raw: tcp://127.0.0.1:$APP
"""
    # Nobody reads the log, and the collector takes connections and answers none of them.
    unread, log = os.pipe()
    os.set_blocking(log, False)
    try:
        while os.write(log, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(log, True)
    async with Server(silent) as app, Server(silent) as deaf:
        attache = Attache(binary, config, APP=app.port, DEAF=deaf.port)
        await attache.start(stdout=log)
        try:
            kept = [await asyncio.open_connection("127.0.0.1", attache[name]) for name in ("IN", "OUT", "RAW")]
            for _, writer in kept:
                writer.write(get())
            await asyncio.sleep(0.3)
            attache.signal("TERM")
            code, took = await attache.ended(20)
            holds(code == 0 and 0.9 < took < 1 + 3.5 + 0.7, f"code {code} after {took:.2f} s")
        finally:
            await attache.__aexit__()
            os.close(log)
            os.close(unread)


@promise
async def no_end_of_ours_makes_a_cut_body_look_whole(binary):
    """ARCHITECTURE.md: a truncated body never ends cleanly. Neither at a drain's deadline, nor for bytes that attache doesn't read."""
    config = SIMPLE.replace("upstreams:", """  raw: { bind: "127.0.0.1:$RAW", protocol: tcp, to: raw }
upstreams:
  raw: tcp://127.0.0.1:$APP""")

    async def each(reader, writer):
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()

    async with Server(each) as app:
        for by in ("TERM", "HUP"):
            async with Attache(binary, config, APP=app.port) as attache:
                calls = [
                    asyncio.create_task(call(attache[name], get(version=version)))
                    for name, version in (("OUT", "1.0"), ("OUT", "1.1"), ("RAW", "1.1"))
                ]
                await asyncio.sleep(0.4)
                if by == "HUP":
                    attache.change('"127.0.0.1:$OUT", to', '"127.0.0.1:$OUT", http: { idle_timeout: 7s }, to')
                    attache.change("protocol: tcp,", "protocol: tcp, tcp_idle_timeout: 7s,")
                attache.signal(by)
                for one in calls:
                    got = await one
                    cut = got.endswith(b"RESET") or b"chunked" in got and b"\r\n0\r\n" not in got
                    holds(b"hello" in got and cut, f"{by}: {got}")


@promise
async def a_second_signal_ends_at_once_while_the_delay_runs(binary):
    async with Server(answering()) as app:
        config = SIMPLE.replace("drain_timeout: 1s }", "delay: 30s, drain_timeout: 30s }", 1)
        async with Attache(binary, config, APP=app.port) as attache:
            attache.signal("TERM")
            await asyncio.sleep(0.3)
            holds(b"200 OK" in await call(attache["OUT"], get(more="connection: close\r\n")), "not served in the delay")
            attache.signal("INT")
            code, took = await attache.ended(5)
            holds(code == 1 and took < 1, f"code {code} after {took:.2f} s")


@promise
async def a_signal_while_it_starts_ends_it(binary):
    """The start waits for names for at most 5 s; nothing is left behind."""
    with deaf_dns() as dns:
        attache = Attache(binary, SIMPLE + SLOW_NAME, APP=1, DNS=dns.getsockname()[1])
        await attache.start(ready=False)
        try:
            await asyncio.sleep(1)
            attache.signal("TERM")
            code, took = await attache.ended(9)
            holds(code == 0 and took < 7, f"code {code} after {took:.2f} s")
        finally:
            await attache.__aexit__()


@promise
async def an_end_during_a_reload_that_waits_is_not_delayed(binary):
    with deaf_dns() as dns:
        async with Server(answering()) as app:
            async with Attache(binary, SIMPLE, APP=app.port, DNS=dns.getsockname()[1]) as attache:
                attache.write(attache.text + SLOW_NAME)
                attache.signal("HUP")
                await asyncio.sleep(0.7)
                holds(b"200 OK" in await call(attache["OUT"], get(more="connection: close\r\n")), "not served in the reload")
                attache.signal("TERM")
                code, took = await attache.ended(10)
                holds(code == 0 and took < 2, f"code {code} after {took:.2f} s")


@promise
async def an_end_during_a_hand_over_leaves_no_process(binary):
    """If somebody ends the service, it must end: no other process may continue to serve."""
    with deaf_dns() as dns:
        async with Server(answering()) as app:
            async with Attache(binary, SIMPLE, APP=app.port, DNS=dns.getsockname()[1]) as attache:
                attache.write(attache.text + SLOW_NAME)
                # The new process waits for the name; the old one must not reload it first.
                attache.signal("USR2")
                await asyncio.sleep(1.5)
                attache.others = processes(attache.folder)
                holds(len(attache.others) == 2, "the test is wrong: it has no successor:", attache.said())
                attache.signal("TERM")
                code, took = await attache.ended(10)
                holds(code == 0 and took < 3, f"code {code} after {took:.2f} s")
                for _ in range(80):
                    left = processes(attache.folder)
                    if not left:
                        break
                    await asyncio.sleep(0.1)
                holds(not left, "a process still serves after the end:", attache.said())


@promise
async def two_hand_overs_at_once_leave_one_process(binary):
    async with Server(answering()) as app:
        async with Attache(binary, SIMPLE, APP=app.port) as attache:
            attache.signal("USR2")
            await asyncio.sleep(0.01)
            attache.signal("USR2")
            code, _ = await attache.ended(15)
            await asyncio.sleep(2)
            attache.others = processes(attache.folder)
            holds(code == 0 and len(attache.others) == 1, f"code {code}, processes {attache.others}")
            holds(b"200 OK" in await call(attache["OUT"], get(more="connection: close\r\n")), "it does not serve")


@promise
async def what_a_reload_takes_away_ends_in_its_time(binary):
    """Tunnels and requests of a listener that is gone, or whose settings changed, end after `reload.drain_timeout`."""
    config = SIMPLE.replace("upstreams:", """  gone: { bind: "127.0.0.1:$GONE", to: app }
  raw: { bind: "127.0.0.1:$RAW", protocol: tcp, to: raw }
upstreams:
  raw: tcp://127.0.0.1:$APP""")
    async with Server(silent) as app:
        async with Attache(binary, config, APP=app.port) as attache:
            kept = []
            for name in ("OUT", "GONE", "RAW"):
                reader, writer = await asyncio.open_connection("127.0.0.1", attache[name])
                writer.write(get())
                kept.append((name, reader, writer))
            await asyncio.sleep(0.3)
            attache.change('  gone: { bind: "127.0.0.1:$GONE", to: app }\n', "")
            attache.change("protocol: tcp,", "protocol: tcp, tcp_idle_timeout: 7s,")
            attache.change('"127.0.0.1:$OUT", to', '"127.0.0.1:$OUT", http: { idle_timeout: 7s }, to')
            began = time.monotonic()
            attache.signal("HUP")
            for name, reader, _ in kept:
                try:
                    while await asyncio.wait_for(reader.read(4096), 6):
                        pass
                except ConnectionError:
                    pass
                took = time.monotonic() - began
                holds(0.8 < took < 3, f"{name} ended after {took:.2f} s:", attache.said())


@promise
async def listeners_that_swap_their_addresses_lose_no_request(binary):
    """A listener is known by its address: kept connections meet the routes that their address has now."""
    config = """
listeners:
  one: { bind: "127.0.0.1:$ONE", to: a }
  two: { bind: "127.0.0.1:$TWO", to: b }
upstreams:
  a: { address: "http://127.0.0.1:$A" }
  b: { address: "http://127.0.0.1:$B" }
"""
    async with Server(answering("a")) as a, Server(answering("b")) as b:
        async with Attache(binary, config, A=a.port, B=b.port) as attache:
            counts, stop = {"a": 0, "b": 0, "failed": 0}, False

            async def kept(to):
                while not stop:
                    reader, writer = await asyncio.open_connection("127.0.0.1", to)
                    for _ in range(50):
                        writer.write(get())
                        answer = await head(reader)
                        body = (await reader.readexactly(1)).decode() if b"200 OK" in answer else "failed"
                        counts[body] += 1
                        if b"connection: close" in answer.lower():
                            break
                    writer.close()

            loads = [asyncio.create_task(kept(attache[name])) for name in ("ONE", "TWO", "ONE", "TWO")]
            await asyncio.sleep(0.3)
            for n in range(6):
                text = attache.text.replace("$ONE", "$X").replace("$TWO", "$ONE").replace("$X", "$TWO")
                attache.write(text)
                attache.signal("HUP")
                await asyncio.sleep(0.4)
                wanted = b"b" if n % 2 == 0 else b"a"
                got = await call(attache["ONE"], get(more="connection: close\r\n"))
                holds(got.endswith(wanted), f"after swap {n + 1} the address has {got[-1:]}:", attache.said())
            stop = True
            await asyncio.gather(*loads)
            holds(counts["failed"] == 0 and counts["a"] > 50 and counts["b"] > 50, counts)


@promise
async def a_file_that_is_written_slowly_is_read_whole(binary):
    """What stands there for less than half a second is not read, though it is a config."""
    note_a, note_b = [], []
    config = SIMPLE.replace('to: app }', 'routes: [{ match: { path: /a/* }, to: app }], to: other }')
    config += '  other: { address: "http://127.0.0.1:$OTHER" }\n'
    async with Server(answering("a", note_a)) as app, Server(answering("b", note_b)) as other:
        async with Attache(binary, config, APP=app.port, OTHER=other.port) as attache:
            whole = attache.filled(attache.text)
            for n in range(6):
                shorter = whole.replace("routes: [{ match: { path: /a/* }, to: app }], ", "")
                attache.file.write_text(shorter)
                await asyncio.sleep(0.3)
                attache.file.write_text(whole + f"# {n}\n")
                await asyncio.sleep(0.8 + 0.07 * n)
                holds((await call(attache["OUT"], get("/a/1", "connection: close\r\n"))).endswith(b"a"), "half a file was read")


@promise
async def a_unix_socket_is_taken_from_no_program_that_runs(binary):
    config = SIMPLE.replace('"127.0.0.1:$OUT"', '"unix:$FOLDER/s"')

    async def asks(attache):
        reader, writer = await asyncio.open_unix_connection(str(attache.folder / "s"))
        writer.write(get())
        answer = await head(reader)
        writer.close()
        return b"200 OK" in answer

    async with Server(answering()) as app:
        async with Attache(binary, config, APP=app.port) as attache:
            holds(await asks(attache), "the first one does not serve")
            second = Attache(binary, config.replace("$FOLDER", str(attache.folder)), APP=app.port)
            await second.start(ready=False)
            code, _ = await second.ended(8)
            holds(code != 0 and "s" in second.said(), f"the second one: {code}: {second.said()}")
            holds(await asks(attache), "the second one took the first one's socket")
            # What a program left behind that was killed is no program.
            attache.process.kill()
            await attache.process.wait()
            await attache.start()
            holds(await asks(attache), "the file of a killed program is in the way")
            attache.signal("TERM")
            await attache.ended(5)
            holds(not (attache.folder / "s").exists(), "its end leaves the file")
