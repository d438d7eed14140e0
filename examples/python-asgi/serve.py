"""Runs app.py under a server, and drains without cutting anybody off: python3 serve.py uvicorn, or hypercorn.

When either is told to end it closes connections that have no request yet, kept ones and such as it has just accepted;
whoever sends at that moment gets a reset. Here it accepts no more, goes on for GRACE seconds, in which answers say
"Connection: close", and only then does what it does."""
import asyncio
import signal
import sys

import app

GRACE = 3
draining = False


async def polite(scope, receive, send):
    async def say(message):
        if draining and message["type"] == "http.response.start" and scope.get("http_version", "").startswith("1"):
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)
    await app.app(scope, receive, say)


def uvicorn():
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets=None):
            global draining
            draining = True
            for server in self.servers:
                server.close()
            await asyncio.sleep(GRACE)
            await super().shutdown(sockets)

    Server(uvicorn.Config(polite, fd=3, backlog=511, access_log=False)).run()


def hypercorn():
    import hypercorn.asyncio
    import hypercorn.config

    class Config(hypercorn.config.Config):
        def create_sockets(self):
            self.sockets = super().create_sockets()
            return self.sockets

    async def main():
        config, told, loop = Config(), asyncio.Event(), asyncio.get_running_loop()
        config.bind, config.backlog, config.graceful_timeout = ["fd://3"], 511, 25
        loop.add_signal_handler(signal.SIGTERM, told.set)

        async def drain():
            global draining
            await told.wait()
            draining = True
            for sock in config.sockets.insecure_sockets:
                loop.remove_reader(sock)
            await asyncio.sleep(GRACE)

        await hypercorn.asyncio.serve(polite, config, shutdown_trigger=drain)

    asyncio.run(main())


{"uvicorn": uvicorn, "hypercorn": hypercorn}[sys.argv[1]]()
