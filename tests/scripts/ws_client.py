"""Echoes texts, binaries and a large message over one WebSocket, then closes it properly: ws_client.py URL [ADDRESS]"""
import asyncio
import sys

import websockets


async def main():
    where = {"host": sys.argv[2]} if len(sys.argv) > 2 else {}
    async with websockets.connect(sys.argv[1], max_size=None, **where) as socket:
        for n in range(100):
            message = f"message {n}" if n % 2 else bytes([n]) * n
            await socket.send(message)
            assert await socket.recv() == message, n
        large = "x" * (4 << 20)
        await socket.send(large)
        assert await socket.recv() == large
        pong = await socket.ping()
        await pong
    assert socket.close_code == 1000, socket.close_code
    print("101 messages echoed")


asyncio.run(main())
