"""An ASGI application."""
import asyncio
import os
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):  # hypercorn 0.13 closes the connection when the request was not read
        pass
    await asyncio.sleep(int(parse_qs(scope["query_string"].decode()).get("ms", ["0"])[0]) / 1000)
    body = f"pid {os.getpid()}\n".encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"x-worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
