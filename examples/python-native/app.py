"""An HTTP server as a worker of supervisord: python3 app.py 127.0.0.1:8080, with the address of a listener."""
import errno
import math
import os
import select
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from supervisord_worker import Worker

ON_ITS_WAY = 2000  # ms in which a request may still come on a connection that was open when the worker began to drain


class Handler(BaseHTTPRequestHandler):
    """Answers the one request of a connection (HTTP/1.0)."""
    timeout = 30  # seconds for each part of the request

    def do_GET(self):
        url, text = urlsplit(self.path), f"pid {os.getpid()} worker {os.environ['SUPERVISORD_WORKER_ID']}\n"
        if url.path == "/slow":
            time.sleep(min(int(parse_qs(url.query)["ms"][0]), 60000) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Worker", str(os.getpid()))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def poll_for(*files):
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return poll


def tell_drain(worker, pipe):
    """Closes the end of a pipe when the worker drains, so that the other end polls readable: a thread."""
    with worker.changed:
        worker.changed.wait_for(lambda: worker.state == "draining")
    os.close(pipe)


def serve(worker, drains, conn, peer):
    """Waits for a request on a connection, which it closes, and answers it: a thread."""
    try:
        with conn:
            if conn.fileno() in dict(poll_for(conn, drains).poll()) or poll_for(conn).poll(ON_ITS_WAY):
                Handler(conn, peer, None)
    except OSError:
        pass  # the client left
    finally:
        worker.count(-1)


def accept(worker, drains, sock):
    """Accepts until the worker drains, never more than max_connections at a time."""
    poll = poll_for(sock, drains)
    while True:
        with worker.changed:
            most = worker.max_connections or math.inf
            worker.changed.wait_for(lambda: worker.counts["connections"] < most or worker.state == "draining")
        if drains in dict(poll.poll()):
            return
        try:
            conn, peer = sock.accept()
        except OSError as err:  # another worker was faster; the client left; a shutdown that the master undoes
            if err.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINVAL):
                raise
            continue
        worker.count(1)
        threading.Thread(target=serve, args=(worker, drains, conn, peer), daemon=True).start()


def main():
    host, _, port = sys.argv[1].rpartition(":")
    worker = Worker("python-native")
    signal.signal(signal.SIGTERM, lambda *_: worker.drain("SIGTERM"))
    drains, pipe = os.pipe()
    threading.Thread(target=tell_drain, args=(worker, pipe), daemon=True).start()
    sock = worker.listen(address=host.strip("[]"), port=int(port))
    worker.ready()
    accept(worker, drains, sock)
    worker.close(sock)
    with worker.changed:
        while worker.counts["connections"] and worker.deadline > time.monotonic():
            worker.changed.wait(max(0, worker.deadline - time.monotonic()))


if __name__ == "__main__":
    main()
