"""The python side of websockets_test.cpp: an independent WebSocket implementation as server and as client.

usage: websockets_peer.py serve PORT [--deflate]    serves until it is ended, on any port if PORT is 0; the path says what a connection does
       websockets_peer.py ask PORT [--deflate]      converses with a server that echoes; exits with 0 if all was right
"""

import asyncio
import sys
import urllib.parse

import websockets

SIZES = [0, 1, 125, 126, 1000, 65535, 65536, 1024 * 1024]
LIMIT = 16 * 1024 * 1024


def pieces(data, count):
    step = max(1, -(-len(data) // count))
    return [data[i : i + step] for i in range(0, len(data), step)]


async def serve_one(ws, path):
    target = urllib.parse.urlsplit(path)
    query = urllib.parse.parse_qs(target.query)
    try:
        if target.path == "/close":
            await ws.close(int(query["code"][0]), query["reason"][0])
        async for message in ws:
            if target.path == "/echo":
                await ws.send(message)
            elif target.path == "/fragments":
                await ws.send(pieces(message, 7))
            elif target.path == "/ping":
                await asyncio.wait_for(await ws.ping(message), 10)
                await ws.send("pong came")
    except websockets.ConnectionClosed:
        pass
    print("closed", ws.close_code, ws.close_reason, flush=True)


async def serve(port, compression):
    options = {"max_size": LIMIT, "compression": compression, "ping_interval": None, "subprotocols": ["echo"]}
    async with websockets.serve(serve_one, "127.0.0.1", port, **options) as server:
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


def text_of(size):
    unit = "grüße 🐎 "
    encoded_size = len(unit.encode())
    return unit * (size // encoded_size) + "x" * (size % encoded_size)


async def converse(port, compression):
    url = f"ws://127.0.0.1:{port}/echo"
    options = {"max_size": LIMIT, "compression": compression, "ping_interval": None, "subprotocols": ["echo"]}
    async with websockets.connect(url, **options) as ws:
        assert ws.subprotocol == "echo", ws.subprotocol
        for size in SIZES:
            binary = bytes(i * i % 251 for i in range(min(size, 4093))) * (size // 4093 + 1)
            for message in (text_of(size), binary[:size]):
                await ws.send(message)
                assert await ws.recv() == message, f"{type(message)} of {size} bytes"
                if size > 1:
                    await ws.send(pieces(message, 5))
                    assert await ws.recv() == message, f"fragments of {type(message)} of {size} bytes"
        await asyncio.wait_for(await ws.ping(b"are you there"), 10)
        await asyncio.wait_for(await ws.ping(b"\0" * 125), 10)
        await ws.close(4000, "bye grüße")
        assert (ws.close_code, ws.close_reason) == (4000, ""), (ws.close_code, ws.close_reason)

    async with websockets.connect(url, **options) as ws:
        await ws.send("close me")
        try:
            await ws.recv()
            raise AssertionError("a message in place of the close frame")
        except websockets.ConnectionClosed:
            pass
        assert (ws.close_code, ws.close_reason) == (4001, "as you wish"), (ws.close_code, ws.close_reason)


if __name__ == "__main__":
    doing = {"serve": serve, "ask": converse}[sys.argv[1]]
    asyncio.run(asyncio.wait_for(doing(int(sys.argv[2]), "deflate" if "--deflate" in sys.argv else None), 120))
