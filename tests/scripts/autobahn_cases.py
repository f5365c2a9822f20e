"""Autobahn's test cases for WebSocket, without and with a proxy: autobahn_cases.py CASES PORT [NAME=PORT]...

CASES is `quick` (framing, pings, fragments, UTF-8, closing: 247 cases) or `all` (also long messages and compression: 331).
An echo server listens on 127.0.0.1:PORT; each NAME is a proxy before it.
Writes one JSON object: {NAME: {case: [result, result of closing]}}; the results without a proxy have the name `direct`.

The package autobahntestsuite is written for Python 2, where a string is bytes.
Here fissix translates its cases when they are imported, and each byte of such a string is the character with the same number.
"""

import builtins
import importlib
import importlib.util
import json
import re
import sys
import types
from pathlib import Path

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.utf8validator import Utf8Validator
from fissix.refactor import RefactoringTool, get_fixers_from_package
from twisted.internet import reactor

QUICK = re.compile(r"[1-7]\..*|10\..*")
# Of those that differ only in sizes, or send a thousand messages each, the first ones.
LONG = re.compile(r"9\.[1-6]\..*|9\.[78]\.[1-3]|1[23]\.\d+\.[1-3]")
# Most of a quick case is waiting. A long one has a limit of time.
AT_ONCE = {QUICK: 12, LONG: 1}
# What the translation doesn't know: newer names of Autobahn's parameters, and operations on strings that are bytes.
TRANSLATED = [
    (r"binascii\.(?:b2a_hex|hexlify)\(", "_hex("),
    (r"unichr\((\w+)\)\.encode\(.utf-8.\)", r"_utf8(\1)"),
    (r"Utf8Validator\(\)", "_Validator()"),
    (r"\(object, Case, \)", "(Case, )"),
    (r"from zope.interface import implements", "implements = lambda *_: None"),
    (r"len\(self\.payload\) / ", "len(self.payload) // "),
    (r"(request|accept)NoContextTakeover", r"\1_no_context_takeover"),
    (r"(request|accept)MaxWindowBits", r"\1_max_window_bits"),
]


def characters(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value


def octets(value):
    return value.encode("latin-1") if isinstance(value, str) else value


def same(one, other):
    def plain(value):
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else characters(value)
    return plain(one) == plain(other)


class Translated:
    """Finds and loads the modules of the suite's cases."""

    def __init__(self, suite):
        self.suite = suite
        self.tool = RefactoringTool(get_fixers_from_package("fissix.fixes"))

    def find_spec(self, name, path=None, target=None):
        if not name.startswith("autobahntestsuite.case"):
            return None
        place = self.suite.joinpath(*name.split(".")[1:])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return importlib.util.spec_from_file_location(
            name, file, loader=self, submodule_search_locations=[str(place)] if place.is_dir() else None)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        code = Path(module.__spec__.origin).read_text("latin-1") + "\n"
        for pattern, replacement in TRANSLATED:
            code = re.sub(pattern, replacement, code)
        code = str(self.tool.refactor_string(code, module.__spec__.origin))
        exec(compile(code, module.__spec__.origin, "exec"), module.__dict__)


def load_cases():
    """All cases of the suite, as pairs of the number and the class."""
    suite = Path(importlib.util.find_spec("autobahntestsuite").origin).parent
    package = types.ModuleType("autobahntestsuite")
    package.__path__ = [str(suite)]
    sys.modules["autobahntestsuite"] = package
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, name: str(suite / name)
    sys.modules["pkg_resources"] = resources

    class Validator(Utf8Validator):
        def validate(self, value):
            return super().validate(octets(value))

    builtins._hex = lambda value: octets(value).hex()
    builtins._utf8 = lambda code: characters(chr(code).encode("utf-8", "surrogatepass"))
    builtins._Validator = Validator
    sys.meta_path.insert(0, Translated(suite))
    cases = importlib.import_module("autobahntestsuite.case")
    cases.Case.compare = lambda self, one, other: same(one, other)
    return [(case.__name__[len("Case"):].replace("_", "."), case) for case in cases.Cases]


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)


class Tester(WebSocketClientProtocol):
    """A client that does what its case says. The cases call its methods; the names are theirs."""

    createWirelog = False

    def connectionMade(self):
        self.connectionWasOpen = False
        self.txFrameStats = {}
        self.runCase = self.factory.case(self)
        super().connectionMade()
        self.logFrames = True

    def logRxFrame(self, frameHeader, payload):
        pass

    def logTxFrame(self, frameHeader, payload, repeatLength, chopsize, sync):
        self.txFrameStats[frameHeader.opcode] = self.txFrameStats.get(frameHeader.opcode, 0) + 1

    def enableWirelog(self, _):
        pass

    def sendFrame(self, opcode, payload=b"", **more):
        return super().sendFrame(opcode, octets(payload), **more)

    def sendMessage(self, payload, isBinary=False, **more):
        return super().sendMessage(octets(payload), isBinary, **more)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(octets(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        return super().sendCloseFrame(code, octets(reasonUtf8), isReply)

    def continueLater(self, delay, function, tag=None):
        reactor.callLater(delay, lambda: self.state != self.STATE_CLOSED and function())

    def killAfter(self, delay):
        self.continueLater(delay, self._fail_connection)

    def closeAfter(self, delay):
        self.continueLater(delay, self.sendClose)

    def onOpen(self):
        self.connectionWasOpen = True
        self.runCase.onOpen()

    def onMessage(self, payload, isBinary):
        # The cases of compression hash the bytes.
        compressed = type(self.runCase).__name__.startswith(("Case12", "Case13"))
        self.runCase.onMessage(payload if compressed else characters(payload), isBinary)

    def onPing(self, payload):
        self.runCase.onPing(characters(payload))
        super().onPing(payload)

    def onPong(self, payload):
        self.runCase.onPong(characters(payload))

    def onClose(self, wasClean, code, reason):
        self.runCase.onClose(wasClean, code, reason)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        self.runCase.onConnectionLost(self.failedByMe)
        self.factory.done(self.runCase.behavior, self.runCase.behaviorClose)


def run(cases, names, at_once, results, end):
    """Runs every case for every name, and calls `end` after the last one."""
    waiting = [(name, port, number, case) for name, port in names for number, case in cases]
    running = len(waiting)

    def start():
        if not waiting:
            return
        name, port, number, case = waiting.pop(0)
        factory = WebSocketClientFactory(f"ws://127.0.0.1:{port}/")
        factory.protocol, factory.case, factory.noisy = Tester, case, False
        # The limits of time are wide: the machine may be busy.
        factory.setProtocolOptions(failByDrop=False, closeHandshakeTimeout=30, serverConnectionDropTimeout=30)

        def done(*result):
            nonlocal running
            results[name][number] = result
            running -= 1
            reactor.callLater(0, start if running else end)
        factory.done = done
        factory.clientConnectionFailed = lambda _, reason: done("NOT CONNECTED", reason.getErrorMessage())
        reactor.connectTCP("127.0.0.1", port, factory)

    for _ in range(at_once):
        start()


def accept_compression(offers):
    return next((PerMessageDeflateOfferAccept(offer) for offer in offers if isinstance(offer, PerMessageDeflateOffer)), None)


def main():
    which, port, *proxies = sys.argv[1:]
    cases = load_cases()
    server = WebSocketServerFactory()
    server.protocol = Echo
    server.setProtocolOptions(failByDrop=False, closeHandshakeTimeout=30, perMessageCompressionAccept=accept_compression)
    reactor.listenTCP(int(port), server, interface="127.0.0.1")
    names = [("direct", int(port)), *((name, int(at)) for name, at in (proxy.split("=") for proxy in proxies))]
    results = {name: {} for name, _ in names}
    sets = [QUICK] if which == "quick" else [QUICK, LONG]

    def following():
        if not sets:
            print(json.dumps(results))
            return reactor.stop()
        pattern = sets.pop(0)
        run([(n, case) for n, case in cases if pattern.fullmatch(n)], names, AT_ONCE[pattern], results, following)
    reactor.callWhenRunning(following)
    reactor.run()


if __name__ == "__main__":
    main()
