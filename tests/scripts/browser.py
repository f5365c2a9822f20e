"""Opens the dashboard in a headless Chromium and says what it saw, as JSON.

browser.py CHROMIUM URL FOLDER AXE [many | outage]: screenshots go to FOLDER; driven over the DevTools protocol. AXE is axe-core's file, which looks for
what people with disabilities can't use. `many` looks at the list of upstreams alone, `outage` at a total outage.
"""

import asyncio
import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import websockets

TIMEOUT = 60


class Page:
    def __init__(self, socket):
        self.socket, self.next, self.waiting = socket, 0, {}
        self.errors, self.requests = [], []
        self.reader = asyncio.ensure_future(self.read())

    async def read(self):
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.waiting.pop(message["id"]).set_result(message)
            elif message["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:600])
            elif message["method"] == "Runtime.consoleAPICalled" and message["params"]["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(message["params"]["args"])[:600])
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] in ("error", "warning"):
                entry = message["params"]["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    async def call(self, method, **params):
        self.next += 1
        future = self.waiting[self.next] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": self.next, "method": method, "params": params}))
        answer = await asyncio.wait_for(future, TIMEOUT)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def value(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def until(self, expression):
        for _ in range(TIMEOUT * 10):
            if await self.value(expression):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"it never came true: {expression}; errors: {self.errors}")

    async def key(self, key, code=None):
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code or 0,
                            **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}))

    async def look(self, width, height, dark, path, at="0"):
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                                                                {"name": "prefers-reduced-motion", "value": "reduce"}])
        await asyncio.sleep(0.2)
        await self.value(f"scrollTo(0, {at})")
        await asyncio.sleep(0.3)
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


FOCUSED = """(() => {
  const node = document.activeElement;
  const outline = getComputedStyle(node).outlineStyle;
  return { tag: node.tagName.toLowerCase(), id: node.id, text: (node.getAttribute('aria-label') || node.textContent || '').trim().slice(0, 40),
           ring: node.matches(':focus-visible') && outline !== 'none' };
})()"""


AXE = """axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map((rule) =>
  `${rule.id}: ${rule.help}: ${rule.nodes.slice(0, 3).map((node) => node.target.join(' ')).join(', ')}`))"""


FAILURES = "document.getElementById('failures').offsetTop - 90"


async def accessible(page, axe):
    """What axe-core finds, in both colour schemes and on a phone."""
    await page.value(axe + "; true")
    found = []
    for width, dark in [(1200, False), (1200, True), (360, False), (360, True)]:
        await page.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=width < 500)
        await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        await asyncio.sleep(0.3)
        found += [f"{width} {'dark' if dark else 'light'}: {one}" for one in await page.value(AXE)]
    return found


async def look_at_many(page, folder, axe):
    await page.until("document.querySelectorAll('.upstream').length > 40")
    await asyncio.sleep(4)
    await page.look(1440, 1000, False, folder / "dashboard-many.png", "document.getElementById('upstreams').offsetTop - 90")
    said = {"height": await page.value("document.getElementById('upstream-list').offsetHeight"),
            "first": await page.value("document.querySelector('.upstream').textContent"),
            "found": await page.value("""(() => { const find = document.getElementById('upstream-find'); find.value = 'service-07';
                find.dispatchEvent(new Event('input')); return new Promise((done) => setTimeout(() =>
                done([...document.querySelectorAll('.upstream')].map((node) => node.dataset.key)), 1500)); })()""")}
    await page.look(360, 780, True, folder / "dashboard-many-phone.png")
    said["axe"] = await accessible(page, axe)
    said["errors"] = page.errors
    page.reader.cancel()
    return said


async def look_at_outage(page, folder, axe):
    await page.until("!document.getElementById('trouble').hidden")
    await asyncio.sleep(2)
    await page.look(1200, 900, False, folder / "dashboard-outage.png")
    said = {"trouble": await page.value("document.getElementById('trouble').textContent"),
            "state": await page.value("document.getElementById('state').textContent"),
            "title": await page.value("document.title"),
            "green": await page.value("document.querySelectorAll('#state .good, .upstream .good').length"),
            "axe": await accessible(page, axe), "errors": page.errors}
    page.reader.cancel()
    return said


async def drive(port, url, folder, axe, only):
    # The browser's own list of its pages.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /json HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nconnection: close\r\n\r\n" % port)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    pages = json.loads(await reader.readexactly(length))
    target = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
    async with websockets.connect(target, max_size=None) as socket:
        page = Page(socket)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        await page.call("Emulation.setDeviceMetricsOverride", width=1200, height=1000, deviceScaleFactor=1, mobile=False)
        await page.call("Page.navigate", url=url)
        await page.until("document.body && document.body.dataset.live === 'yes'")
        if "many" in only:
            return await look_at_many(page, folder, axe)
        if "outage" in only:
            return await look_at_outage(page, folder, axe)
        await page.until("document.querySelectorAll('#failure-rows tr').length > 0")
        await page.until("document.querySelectorAll('#chart-traffic path.line').length > 0")
        said = {}
        order = []
        for _ in range(40):
            await page.key("Tab", 9)
            order.append(await page.value(FOCUSED))
        said["tab_order"] = order
        # A failure's reason is opened, read and closed by keyboard alone.
        await page.value("document.querySelector('#failure-rows button').focus()")
        await page.key("Enter", 13)
        await page.until("document.getElementById('reason-dialog').open")
        said["reason"] = await page.value("document.getElementById('reason-dialog').textContent")
        await page.key("Escape", 27)
        await page.until("!document.getElementById('reason-dialog').open")
        # Following, by its form.
        await page.value("document.getElementById('tap-go').click()")
        await page.until("document.querySelectorAll('#tap-lines li').length > 3")
        said["tapped"] = await page.value("document.getElementById('tap-lines').textContent.slice(0, 2000)")
        await page.value("document.getElementById('tap-go').click()")
        await page.value("document.querySelector('.upstream summary').click()")
        await page.until("document.querySelectorAll('.upstream tbody tr').length > 0")
        await page.value("document.activeElement.blur()")
        await page.look(1200, 1000, False, folder / "dashboard.png")
        await page.look(1200, 1000, True, folder / "dashboard-dark.png")
        await page.look(360, 780, False, folder / "dashboard-phone.png")
        said["phone_overflow"] = await page.value("document.documentElement.scrollWidth - 360")
        said["marked_up"] = await page.value("document.querySelectorAll('main img, main script, main b > *').length")
        await page.look(360, 780, True, folder / "dashboard-phone-dark.png", FAILURES)
        await page.look(1200, 1000, False, folder / "dashboard-failures.png", FAILURES)
        await page.look(1200, 1000, False, folder / "dashboard-events.png", "document.getElementById('events').offsetTop - 90")
        await page.look(1200, 1000, False, folder / "dashboard-clients.png", "document.getElementById('clients').offsetTop - 90")
        await page.value("document.getElementById('diff').open = true")
        await page.look(1200, 1000, True, folder / "dashboard-config.png", "document.getElementById('config').offsetTop - 90")
        # The hour, by keyboard.
        await page.value("document.getElementById('window-minutes').focus()")
        await page.key("ArrowRight", 39)
        said["hour"] = await page.value("document.getElementById('window-hour').checked")
        said["axe"] = await accessible(page, axe)
        said["page"] = await page.value("document.body.innerText")
        said["errors"] = page.errors
        said["requests"] = page.requests
        page.reader.cancel()
        return said


async def main():
    chromium, url, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    axe, only = pathlib.Path(sys.argv[4]).read_text(), sys.argv[5:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "HOME": profile})
        try:
            at = pathlib.Path(profile, "DevToolsActivePort")
            for _ in range(TIMEOUT * 10):
                if at.exists() and at.read_text().count("\n"):
                    break
                await asyncio.sleep(0.1)
            print(json.dumps(await drive(int(at.read_text().split()[0]), url, folder, axe, only)))
        finally:
            # Its own session: the helpers it started end with it.
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


asyncio.run(main())
