"""A worker of supervisord in plain Python: docs/protocol.md, version 1, without its optional features."""
import errno
import json
import os
import queue
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress


class Worker:
    """Three threads serve the link, whatever the program does. `changed`, which is also the lock, is notified of news:
    `state` is starting, ready, or draining until `deadline` (by time.monotonic), `counts` what the program counted."""

    def __init__(self, client):
        if "SUPERVISORD_FD" not in os.environ:
            raise RuntimeError("SUPERVISORD_FD is not set: this program has to be started by supervisord")
        self._link = socket.socket(fileno=int(os.environ.pop("SUPERVISORD_FD")))
        self._link.set_inheritable(False)
        self.changed = threading.Condition()  # re-entrant, for signal handlers
        self.state, self.deadline, self.max_connections = "starting", 0.0, 0
        self.counts = {"connections": 0, "accepted": 0}
        self._client, self._epoch, self._ids, self._queue = client, 0, iter(range(1, 1 << 64)), queue.SimpleQueue()
        self._asked, self._handles = {}, {}  # requests with their Futures by id, handles by socket
        self._greet()
        for loop in self._read, self._write, self._tell:
            threading.Thread(target=loop, daemon=True).start()
        with self.changed:
            self.changed.wait_for(lambda: self._epoch or self.state == "draining")

    def listen(self, **wish):
        """The socket of a name, or of an address and port; what the master refuses is an OSError with its errno.
        Other workers accept on it: expect BlockingIOError; no listen, shutdown, setblocking(True)."""
        with self.changed:
            if self.state == "draining":
                raise OSError(errno.ESHUTDOWN, "the worker drains")
            request, future = {"type": "listen", "id": next(self._ids), "network": "tcp", **wish}, Future()
            self._asked[request["id"]] = request, future
            self._say(request)
        return future.result()

    def close(self, sock):
        """Closes a socket of listen, and gives its handle back."""
        with self.changed:
            sock.close()
            self._say({"type": "close", "handle": self._handles.pop(sock)})

    def count(self, by):
        """A connection was accepted (1), or ended (-1)."""
        with self.changed:
            self.counts = {"connections": self.counts["connections"] + by,
                           "accepted": self.counts["accepted"] + max(by, 0)}
            self.changed.notify_all()

    def ready(self):
        """Says that the worker serves."""
        with self.changed:
            if self.state == "starting":
                self.state = "ready"
                self._say({"type": "ready"})

    def drain(self, reason):
        """Begins to drain, by the program's own will; the master starts a successor."""
        with self.changed:
            if self.state != "draining":
                self.state, self.deadline = "draining", self.deadline or time.monotonic() + 30
                self._say({"type": "draining", "reason": reason[:200]})
                self.changed.notify_all()

    def _say(self, message):
        self._queue.put((self._hello, message))

    def _greet(self):
        """Says hello, and all that a new master has to know; what still waits for the old one is void."""
        self._hello, self._told = next(self._ids), self.counts
        self._say({"type": "hello", "id": self._hello, "versions": [1], "client": self._client, "epoch": self._epoch,
                   "state": self.state, "holds": list(self._handles.values()), "counts": self.counts})
        for request, _ in self._asked.values():
            self._say(request)
        if self.state != "starting":
            self._say({"type": self.state})

    def _write(self):
        while True:
            hello, message = self._queue.get()
            if hello == self._hello:
                with suppress(OSError):  # the link has ended, which the reader sees, too
                    self._link.send(json.dumps(message).encode())

    def _tell(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._told != self.counts)
                if self._queue.empty():  # else they wait here, and become one message
                    self._told = self.counts
                    self._say({"type": "counts", **self.counts})
            time.sleep(0.25)

    def _read(self):
        data = b"-"
        with suppress(OSError):
            while data:
                data, control, _, _ = self._link.recvmsg(65536, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC)
                files = [fd for _, _, fds in control for fd in memoryview(fds).cast("i")]
                message, answer = {}, {"type": "error", "code": "BAD_MESSAGE"}
                with self.changed, suppress(KeyError, TypeError, ValueError, RecursionError):
                    message = {**json.loads(data.decode())}  # a TypeError if it is no object
                    answer = self._hear(message, files)
                    self.changed.notify_all()
                ident = message.get("id")
                if answer and type(ident) is int and 0 < ident < 1 << 64 and message.get("type") != "error":
                    self._say({**answer, "re": ident})
                for fd in files:  # nobody expected these
                    os.close(fd)
                while self._queue.qsize() > 256:  # no more of a master who does not read
                    time.sleep(0.25)
        self.drain("the link has ended")
        for _, future in self._asked.values():
            future.set_exception(OSError(errno.EPIPE, "the link has ended"))

    def _hear(self, message, files):
        """Acts on a message, takes the descriptor that it expects out of files, and returns the answer, if any."""
        kind, re = message.get("type"), message.get("re")
        _, future = self._asked.pop(re, (None, None))
        if kind == "drain":
            self.deadline = time.monotonic() + min(message.get("deadline_ms") or 0, 10**9) / 1000 - 0.1
            self.drain(str(message.get("reason") or ""))
        elif kind == "welcome" and message["epoch"] != self._epoch and re in (None, 0, self._hello):
            self._epoch, self.max_connections = message["epoch"], message.get("max_connections") or 0
            if re != self._hello:
                self._greet()
        elif kind == "grant" and future and len(files) == 1:
            sock = socket.socket(fileno=files.pop())
            sock.setblocking(False)  # which it is; now Python knows
            self._handles[sock] = message["handle"]
            future.set_result(sock)
        elif kind == "grant" and message["handle"] not in self._handles.values():
            self._say({"type": "close", "handle": message["handle"]})
            if future:
                future.set_exception(OSError(errno.EMFILE, "the socket did not come"))
        elif kind == "error" and future:
            future.set_exception(OSError(message.get("errno") or 0, message.get("message")))
        elif kind == "error" and re == self._hello:
            self.drain(str(message.get("message")))
        answers = {"ping": {"type": "pong"}, "count": {"type": "counts", **self.counts},
                   "drain": None, "welcome": None, "grant": None, "error": None}
        return answers.get(kind, {"type": "error", "code": "UNKNOWN_MESSAGE"})
