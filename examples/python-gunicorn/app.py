"""A WSGI application; gunicorn finds the sockets in LISTEN_FDS by itself."""
import os
import time
from urllib.parse import parse_qs


def app(environ, start_response):
    time.sleep(int(parse_qs(environ["QUERY_STRING"]).get("ms", ["0"])[0]) / 1000)
    body = f"pid {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Worker", str(os.getpid()))])
    return [body]
