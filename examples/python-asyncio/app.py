"""An HTTP server with asyncio, on the sockets that systemd or supervisord passes."""
import asyncio
import os
import signal
import socket
import urllib.parse

GRACE = 5  # seconds in which a kept connection may have one more request, once the server drains


async def wait_for_head(reader, draining):
    """The next request of a connection, or None when none is to come."""
    head, drain = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n")), asyncio.ensure_future(draining.wait())
    await asyncio.wait({head, drain}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({head}, timeout=GRACE)
    drain.cancel()
    if not head.done():
        head.cancel()
    try:
        return await head
    except (asyncio.CancelledError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return None


async def serve(reader, writer, draining):
    keep = True
    while keep and (head := await wait_for_head(reader, draining)):
        url = urllib.parse.urlsplit(head.split()[1].decode())
        if url.path == "/slow":
            await asyncio.sleep(int(urllib.parse.parse_qs(url.query)["ms"][0]) / 1000)
        # Who is told "close" sends no more here, so nothing is lost when the connection closes.
        keep = not draining.is_set() and b"\r\nconnection: close\r\n" not in head.lower()
        body = f"pid {os.getpid()}\n"
        writer.write((f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nX-Worker: {os.getpid()}\r\n"
                      f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n{body}").encode())
        try:
            await writer.drain()
        except ConnectionError:
            break
    writer.close()


async def main():
    draining, clients = asyncio.Event(), set()

    async def client(reader, writer):
        clients.add(asyncio.current_task())
        try:
            await serve(reader, writer, draining)
        finally:
            clients.discard(asyncio.current_task())

    # asyncio calls listen(2) again, with this backlog: that of the configuration, since the socket is everybody's.
    servers = [await asyncio.start_server(client, sock=socket.socket(fileno=fd), backlog=511)
               for fd in range(3, 3 + int(os.environ["LISTEN_FDS"]))]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, draining.set)
    await draining.wait()
    for server in servers:
        server.close()  # what waits in the queue is for the others
    while clients:
        await asyncio.wait(clients)


asyncio.run(main())
