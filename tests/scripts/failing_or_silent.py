"""An HTTP/1.1 server: failing_or_silent.py ADDRESS PORT

`/hold` is never answered. Everything else is answered with 503, to be asked again after 5 seconds.
"""

import asyncio
import sys


async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.split(b" ")[1] == b"/hold":
                await reader.read()
                break
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()


asyncio.run(main())
