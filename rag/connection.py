"""A connection that nobody can hold for ever, by headers without end or an answer left unread."""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@dataclass(frozen=True, slots=True)
class Patience:
    """How much of a connection's time and memory a client may take."""

    headers_s: float = 15.0
    header_bytes: int = 64 << 10
    stalled_s: float = 60.0
    """How long a client may leave an answer unread."""
    n_connections: int = 4096


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which itself waits for ever for a request's headers and for a slow reader."""

    def __init__(self, *args: Any, patience: Patience, **named: Any) -> None:
        super().__init__(*args, **named)
        self._patience = patience
        self._n_header_bytes = 0
        self._in_body = False
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        """Take a connection, or drop it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._patience.n_connections:
            transport.abort()
        else:
            self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Read on; headers are bounded in time and bytes, and so is a body after its answer was given."""
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_headers()
        if self._deadline is not None and not self._in_body:
            self._n_header_bytes += len(data)
        super().data_received(data)
        # Still waiting: all of it was header.
        if self._deadline is not None and self._n_header_bytes > self._patience.header_bytes:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._in_body = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is there whole."""
        self._in_body = False
        self._stop_waiting()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._patience.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that it reads again."""
        self._reader_is_back()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_waiting()
        self._reader_is_back()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._n_header_bytes = 0
        self._deadline = self.loop.call_later(self._patience.headers_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _reader_is_back(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
