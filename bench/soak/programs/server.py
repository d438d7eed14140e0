"""An HTTP server that takes its socket from systemd (sd_listen_fds(3)).

On SIGTERM it accepts no more, answers whoever is connected, and ends.
"""
import asyncio
import os
import signal
import socket

FIRST_FD = 3


class Connection(asyncio.Protocol):
    open = set()
    none = asyncio.Event()

    def __init__(self):
        self.request = b""
        Connection.open.add(self)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.request += data
        if not self.request.endswith(b"\r\n\r\n"):
            return
        body = b"pid=%d round=%s\n" % (os.getpid(), os.environb.get(b"ROUND", b""))
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\nX-Worker: %d\r\n\r\n"
        self.transport.write(head % (len(body), os.getpid()) + body)
        self.transport.close()

    def connection_lost(self, error):
        Connection.open.discard(self)
        if not Connection.open:
            Connection.none.set()


async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # The backlog is that of the listener in the configuration: asyncio calls listen(2).
    server = await loop.create_server(Connection, sock=socket.socket(fileno=FIRST_FD), backlog=511)
    await stop.wait()

    # close() alone loses what was accepted in this turn of the loop: such a connection
    # has its transport in the next one, and a server that is closed has none for it.
    for sock in server.sockets:
        loop.remove_reader(sock.fileno())
    await asyncio.sleep(0)
    server.close()
    while Connection.open:
        Connection.none.clear()
        await Connection.none.wait()


assert os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1", "needs one socket"
asyncio.run(main())
