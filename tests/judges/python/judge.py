"""The same client and server as ../go/main.go, with every default of grpcio: judge.py server ADDRESS | client TARGET PATTERN RATE SECONDS"""
import concurrent.futures
import sys
import threading
import time

import grpc


def pace(begin, n, rate):
    """Waits until n messages may have gone at this rate; 0 is as fast as it goes."""
    if rate:
        time.sleep(max(0, begin + n / rate - time.monotonic()))


def feed(request, context):
    rate, count, size = map(int, request.split())
    begin, message = time.monotonic(), bytes(size)
    for n in range(count):
        yield message
        pace(begin, n + 1, rate)


def watch(request, context):
    yield b"x"
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()


class Judge(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "Feed": grpc.unary_stream_rpc_method_handler(feed),
            "Both": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
            "Watch": grpc.unary_stream_rpc_method_handler(watch),
        }.get(call.method.rsplit("/", 1)[1])


def serve(address):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), handlers=(Judge(),))
    server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


class Client:
    def __init__(self, target):
        channel = grpc.insecure_channel(target)
        self.unary_call = channel.unary_unary("/judge.Judge/Unary")
        self.feed_call = channel.unary_stream("/judge.Judge/Feed")
        self.both_call = channel.stream_stream("/judge.Judge/Both")
        self.watch_call = channel.unary_stream("/judge.Judge/Watch")

    def unary(self, rate, seconds):
        begin, calls = time.monotonic(), []
        for n in range(int(rate * seconds)):
            calls.append(self.unary_call.future(bytes(1000), timeout=60))
            pace(begin, n + 1, rate)
        return sum(len(call.result()) == 1000 for call in calls)

    def messages(self, rate, count, size):
        n = sum(1 for _ in self.feed_call(b"%d %d %d" % (rate, count, size)))
        assert n == count, f"{n} of {count}"
        return n

    def feed(self, rate, seconds):
        return self.messages(rate, int(rate * seconds), 1000)

    def burst(self, count, _):
        return self.messages(0, count, 10)

    def both(self, rate, seconds):
        count = int(rate * seconds)

        def ask():
            begin = time.monotonic()
            for n in range(count):
                yield bytes(100)
                pace(begin, n + 1, rate)

        n = sum(1 for _ in self.both_call(ask()))
        assert n == count, f"{n} of {count}"
        return n

    def cancel(self, rate, seconds):
        """Three of four calls are given up: two after their first message, one before it. A quiet stream must not notice."""
        quiet = self.watch_call(b"")
        next(quiet)
        begin, count = time.monotonic(), int(rate * seconds)
        for n in range(count):
            if n % 4 == 0:
                self.unary_call(b"x", timeout=60)
            else:
                call = self.watch_call(b"")
                if n % 4 != 1:
                    next(call)
                call.cancel()
            assert quiet.is_active(), f"the quiet stream ended: {quiet.code()} {quiet.details()}"
            pace(begin, n + 1, rate)
        return count


if sys.argv[1] == "server":
    serve(sys.argv[2])
else:
    _, _, target, pattern, rate, seconds = sys.argv
    begin = time.monotonic()
    try:
        n = getattr(Client(target), pattern)(int(rate), float(seconds))
    except (grpc.RpcError, AssertionError) as error:
        words = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)
        print("FAILED", words)
        sys.exit(1)
    print(f"OK {n} in {time.monotonic() - begin:.1f} s")
