"""uvicorn, started and stopped as the commands need it."""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI

from rag.connection import BoundedProtocol, Patience
from rag.errors import CannotListen, ServiceFailed

if TYPE_CHECKING:
    from rag.shutdown import Shutdown

_LAST_WORDS_S = 5
"""How long ended answers may take to say so, before their connections are cut."""


class Server(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(
        self,
        app: FastAPI,
        *,
        on_listening: Callable[[], None] = lambda: None,
        uds: Path | None = None,
        grace_s: float = 5.0,
        patience: Patience | None = None,
    ) -> None:
        """Prepare to serve; `grace_s` is how long running answers may go on after a signal to stop."""
        protocol: Any = partial(BoundedProtocol, patience=patience or Patience())
        config = uvicorn.Config(
            app,
            uds=str(uds) if uds else None,
            http=protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(grace_s) + _LAST_WORDS_S,
        )
        super().__init__(config)
        self._shutdown: Shutdown = app.state.service.shutdown
        self._grace_s = grace_s
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: from this moment on nothing new is let in."""
        self._shutdown.begin()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running answers finish within the grace, then end them with a last word."""
        self._shutdown.begin()
        ending = asyncio.get_running_loop().call_later(self._grace_s, self._shutdown.end_all)
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything slow is done. Raises: CannotListen, naming the address and the way out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # Without it the port stays taken for a minute after a stop.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.set_inheritable(True)
        except OSError:
            listener.close()
            raise
    except socket.gaierror as error:
        raise CannotListen(
            f"QUARRY_HOST={host} is not an address of this machine: {error.strerror}"
        ) from error
    except OSError as error:
        raise CannotListen(_explain(error, host, port)) from error
    return listener


@contextmanager
def serving_privately(app: FastAPI, folder: Path) -> Iterator[Path]:
    """Serve from a thread on a Unix socket in `folder`, which only this user can reach; yield the socket."""
    uds = folder / "socket"
    decided = threading.Event()  # it listens, or it never will
    server = Server(app, on_listening=decided.set, uds=uds)

    def run() -> None:
        try:
            server.run()
        finally:
            decided.set()

    thread = threading.Thread(target=run, name="private-service")
    thread.start()
    try:
        decided.wait()
        if not server.started:
            raise ServiceFailed("the service inside this command did not start; --debug shows why")
        yield uds
    finally:
        server.should_exit = True
        thread.join()


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use by another program: "
            f"stop that program, or choose another port: QUARRY_PORT={port + 1 if port < 65535 else 8080}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for the system: choose one above 1023, as QUARRY_PORT=8080"
    return f"cannot listen on {host} port {port}: {error.strerror}"
