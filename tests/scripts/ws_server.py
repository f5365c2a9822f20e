"""A WebSocket echo server: ws_server.py HOST PORT"""
import asyncio
import sys

import websockets


async def echo(socket, *_):
    async for message in socket:
        await socket.send(message)


async def main():
    async with websockets.serve(echo, sys.argv[1], int(sys.argv[2]), max_size=None):
        await asyncio.Future()


asyncio.run(main())
