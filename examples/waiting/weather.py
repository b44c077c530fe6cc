"""A slow service: it answers once enough requests wait. ``python weather.py PORT REQUESTS``."""

import asyncio
import json
import sys


def main(port: int, together: int) -> None:
    """Serve until it is stopped."""
    asyncio.run(_serve(port, asyncio.Barrier(together)))


async def _serve(port: int, barrier: asyncio.Barrier) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        town = head.split()[1].decode().rpartition("/")[2]
        await barrier.wait()
        body = json.dumps({"town": town, "sky": "clear"})
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
